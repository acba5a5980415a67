"""The methods of the contract that this package calls, over one channel.

Written out instead of generated, so that each call has its types; a test holds it against the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

from .credential import Issued
from .secret import Secret
from .v1 import broker_pb2, verifier_pb2

if TYPE_CHECKING:
    from grpc import aio

Asked = TypeVar("Asked", bound=Message)
Answer = TypeVar("Answer")


class Calls:
    """Multi-callables of one channel."""

    def __init__(self, channel: aio.Channel) -> None:
        self.open_task: aio.UnaryUnaryMultiCallable[broker_pb2.OpenTaskRequest, broker_pb2.OpenTaskResponse] = (
            channel.unary_unary(
                "/mayfly.v1.Broker/OpenTask",
                request_serializer=broker_pb2.OpenTaskRequest.SerializeToString,
                response_deserializer=broker_pb2.OpenTaskResponse.FromString,
            )
        )
        self.issue: aio.UnaryUnaryMultiCallable[broker_pb2.IssueRequest, Issued] = channel.unary_unary(
            "/mayfly.v1.Broker/Issue",
            request_serializer=broker_pb2.IssueRequest.SerializeToString,
            response_deserializer=_take,
        )
        self.release: aio.UnaryUnaryMultiCallable[broker_pb2.ReleaseRequest, broker_pb2.ReleaseResponse] = (
            channel.unary_unary(
                "/mayfly.v1.Broker/Release",
                request_serializer=broker_pb2.ReleaseRequest.SerializeToString,
                response_deserializer=broker_pb2.ReleaseResponse.FromString,
            )
        )
        self.complete_task: aio.UnaryUnaryMultiCallable[
            broker_pb2.CompleteTaskRequest, broker_pb2.CompleteTaskResponse
        ] = channel.unary_unary(
            "/mayfly.v1.Broker/CompleteTask",
            request_serializer=broker_pb2.CompleteTaskRequest.SerializeToString,
            response_deserializer=broker_pb2.CompleteTaskResponse.FromString,
        )
        self.hold_task: aio.StreamStreamMultiCallable[broker_pb2.HoldTaskRequest, broker_pb2.HoldTaskResponse] = (
            channel.stream_stream(
                "/mayfly.v1.Broker/HoldTask",
                request_serializer=broker_pb2.HoldTaskRequest.SerializeToString,
                response_deserializer=broker_pb2.HoldTaskResponse.FromString,
            )
        )
        self.introspect: aio.UnaryUnaryMultiCallable[
            Presented[verifier_pb2.IntrospectRequest], verifier_pb2.IntrospectResponse
        ] = channel.unary_unary(
            "/mayfly.v1.Verifier/Introspect",
            request_serializer=_serialize,
            response_deserializer=verifier_pb2.IntrospectResponse.FromString,
        )
        self.watch_revocations: aio.UnaryStreamMultiCallable[
            verifier_pb2.WatchRevocationsRequest, verifier_pb2.WatchRevocationsResponse
        ] = channel.unary_stream(
            "/mayfly.v1.Verifier/WatchRevocations",
            request_serializer=verifier_pb2.WatchRevocationsRequest.SerializeToString,
            response_deserializer=verifier_pb2.WatchRevocationsResponse.FromString,
        )


class Presented(Generic[Asked]):
    """A request that holds a secret, which its `repr` does not show."""

    __slots__ = ("message",)

    def __init__(self, message: Asked) -> None:
        self.message = message

    def __repr__(self) -> str:
        return f"{type(self.message).__name__}(..)"


def _serialize(request: Presented[Asked]) -> bytes:
    return request.message.SerializeToString()


def _take(wire: bytes) -> Issued:
    """Takes the secret out of an answer before anybody sees the message."""
    reply = broker_pb2.IssueResponse.FromString(wire)
    which = reply.WhichOneof("credential")
    token = None
    if which == "token":
        token = Secret(reply.token)
        reply.token = ""
    elif which == "secret":
        token = Secret(reply.secret.value.decode("utf-8", "surrogateescape"))
        reply.secret.value = b""
    return Issued(reply=reply, token=token, is_certificate=which == "x509")
