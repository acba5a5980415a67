"""What a gRPC status says, as an error of this package. The one place that knows `google.rpc`."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc import aio

from .errors import DOMAIN, EndReason, MayflyError, Refused, TaskOver, Unreachable, Untrusted, Violation
from .reasons import REASONS

DETAILS = "grpc-status-details-bin"
MADE_HERE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        # A stream that was reset, whatever the reset says.
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
"""Codes that without a reason are not the broker's word: there was no connection, or it broke."""
DISTRUST = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "is not in peer certificate")
"""What gRPC says when this side's check of the broker's certificate failed. It has no code for that."""


def error_of(failure: aio.AioRpcError) -> MayflyError:
    """The error that a failed call is."""
    code = failure.code()
    said = failure.details() or ""
    info, retry, violations = _details(failure)
    if not info.reason:
        if any(sign in said for sign in DISTRUST):
            return Untrusted(f"the broker's certificate is not trusted: {said}")
        if code in MADE_HERE:
            return Unreachable(f"cannot reach the broker: {code.name}: {said}")
    refused = REASONS.get(info.reason, Refused)(
        said,
        reason=info.reason,
        code=code.name,
        metadata=info.metadata,
        violations=violations,
        retry_after=retry,
    )
    if isinstance(refused, TaskOver):
        refused.end_reason = EndReason.__members__.get(refused.metadata.get("why", "").upper(), EndReason.UNSPECIFIED)
    return refused


def _details(failure: aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, float, tuple[Violation, ...]]:
    """The broker's own details; empty ones when there are none, or none that can be read."""
    info, retry = error_details_pb2.ErrorInfo(), 0.0
    violations: tuple[Violation, ...] = ()
    status = status_pb2.Status()
    try:
        for key, value in failure.trailing_metadata() or ():
            if key == DETAILS and isinstance(value, bytes):
                status.ParseFromString(value)
        for detail in status.details:
            found = error_details_pb2.ErrorInfo()
            if detail.Is(found.DESCRIPTOR) and detail.Unpack(found) and found.domain == DOMAIN:
                info = found
            wait = error_details_pb2.RetryInfo()
            if detail.Is(wait.DESCRIPTOR) and detail.Unpack(wait):
                retry = wait.retry_delay.seconds + wait.retry_delay.nanos / 1e9
            fields = error_details_pb2.BadRequest()
            if detail.Is(fields.DESCRIPTOR) and detail.Unpack(fields):
                violations = tuple(Violation(one.field, one.description) for one in fields.field_violations)
    except DecodeError:
        return error_details_pb2.ErrorInfo(), 0.0, ()
    return info, retry, violations
