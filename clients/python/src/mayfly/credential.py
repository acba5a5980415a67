"""What a workload asks for under a task, and what it gets."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import EndReason, Incomplete
from .keys import Key, chain_pem
from .secret import Secret, SecretText
from .v1 import broker_pb2, types_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


class Kind(enum.Enum):
    """The form a credential takes."""

    JWT = types_pb2.CREDENTIAL_KIND_JWT
    """A signed token (RFC 9068)."""
    OPAQUE = types_pb2.CREDENTIAL_KIND_OPAQUE
    """A reference token, which only introspection can check."""
    X509 = types_pb2.CREDENTIAL_KIND_X509
    """A certificate with one SPIFFE URI."""
    SECRET = types_pb2.CREDENTIAL_KIND_SECRET
    """A static secret: it does not end with its lease, only its vendor can end it."""


class Binding(enum.Enum):
    """How a token is tied to its holder."""

    AUTO = broker_pb2.BINDING_UNSPECIFIED
    """Bound to the caller's client certificate when it has one."""
    CERTIFICATE = broker_pb2.BINDING_CERTIFICATE
    """Bound; refused without a client certificate."""
    NONE = broker_pb2.BINDING_NONE
    """Whoever holds it can use it; refused when the grant demands binding."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for. Words and limits are those of the contract's `IssueRequest`.

    Units: `ttl_seconds` in seconds, 0 for the grant's default; what exceeds the grant's is refused, not cut.
    """

    kind: Kind
    audiences: Sequence[str] = ()
    actions: Sequence[str] = ()
    dns_names: Sequence[str] = ()
    grant: str = ""
    ttl_seconds: int = 0
    binding: Binding = Binding.AUTO
    secret: str = ""
    """The static secret, for that kind alone, which has no audiences and actions."""

    def __post_init__(self) -> None:
        for name in ("audiences", "actions", "dns_names"):
            # A text is a sequence of texts, and never what is meant here.
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is a list of texts, not one text")

    def request(self, task_id: str, key: Key | None, idempotency_key: str) -> broker_pb2.IssueRequest:
        """As it is asked for; `key` is the one to certify."""
        return broker_pb2.IssueRequest(
            task_id=task_id,
            grant=self.grant,
            kind=self.kind.value,
            audiences=self.audiences,
            actions=self.actions,
            dns_names=self.dns_names,
            ttl_seconds=self.ttl_seconds,
            binding=self.binding.value,
            csr_der=b"" if key is None else key.request(),
            idempotency_key=idempotency_key,
            secret=self.secret,
        )


@dataclass(frozen=True)
class Lease:
    """One credential's life in the broker's books. Not a secret."""

    lease_id: str
    task_id: str
    tenant: str
    partner: str
    grant: str
    workload: str
    purpose: str
    audiences: tuple[str, ...]
    actions: tuple[str, ...]
    issued: datetime.datetime
    """UTC, by the broker's clock."""
    expires: datetime.datetime
    """UTC, by the broker's clock; valid while now is before it."""
    end_reason: EndReason

    @classmethod
    def of(cls, lease: types_pb2.Lease) -> Lease:
        """From the contract's message."""
        return cls(
            lease_id=lease.lease_id,
            task_id=lease.task_id,
            tenant=lease.tenant,
            partner=lease.partner,
            grant=lease.grant,
            workload=lease.workload,
            purpose=lease.purpose,
            audiences=tuple(lease.audiences),
            actions=tuple(lease.actions),
            issued=time_of(lease.issued),
            expires=time_of(lease.expires),
            end_reason=EndReason.of(lease.end_reason),
        )


@dataclass(frozen=True)
class Issued:
    """An answer of the broker, its token taken out."""

    reply: broker_pb2.IssueResponse
    token: Secret | None
    is_certificate: bool


@dataclass(frozen=True)
class Credential:
    """One issued credential: a token or a certificate. Its secret is absent from its `repr`."""

    lease: Lease
    ends: float
    """When it ends, by `time.monotonic()`: never later than by the broker's clock."""
    life: float
    """Seconds from its issue to its end."""
    is_renewable: bool
    """Whether a successor could live longer: not when the task or the grant decided the end."""


@dataclass(frozen=True)
class IssuedToken(Credential):
    """A JWT or reference token, or a static secret."""

    secret: Secret = field(repr=False)

    def value(self) -> SecretText:
        """The text; its `repr` is redacted. A token is good until `ends`, unless it is revoked.

        A static secret is good until its vendor ends it. Bytes of one that are no UTF-8 are surrogates, which
        `text.encode("utf-8", "surrogateescape")` turns back.
        """
        return self.secret.expose()


@dataclass(frozen=True)
class IssuedCertificate(Credential):
    """An X.509 certificate with the key that was made for it here."""

    chain_pem: str = field(repr=False)
    """Leaf and intermediates, leaf first."""
    key_pem: Secret = field(repr=False)
    """PKCS #8."""
    roots_pem: str = field(repr=False)
    """The roots that a peer needs."""
    spiffe_id: str
    """The one URI name."""


def credential_of(issued: Issued, key: Key | None, asked: float) -> IssuedToken | IssuedCertificate:
    """From the broker's answer to a request that was sent at `asked` (`time.monotonic()`).

    Raises:
        Incomplete: when the answer lacks what it must have.
    """
    reply = issued.reply
    if not reply.HasField("lease"):
        raise Incomplete("the broker sent no lease")
    lease = Lease.of(reply.lease)
    # By the broker's clock, from when it was asked for by ours: clocks that differ make no difference.
    life = max((lease.expires - lease.issued).total_seconds(), 0.0)
    is_renewable = reply.bound not in (broker_pb2.BOUND_TASK_DEADLINE, broker_pb2.BOUND_GRANT_EXPIRY)
    if issued.token is not None and key is None:
        return IssuedToken(lease, asked + life, life, is_renewable, issued.token)
    if issued.is_certificate and key is not None:
        x509 = reply.x509
        return IssuedCertificate(
            lease,
            asked + life,
            life,
            is_renewable,
            chain_pem=chain_pem(list(x509.chain_der)),
            key_pem=key.expose_pem(),
            roots_pem=chain_pem(list(x509.bundle_der)),
            spiffe_id=x509.spiffe_id,
        )
    raise Incomplete("the broker sent no credential of the kind that was asked for")


def time_of(stamp: Timestamp) -> datetime.datetime:
    """A moment of the contract as one of Python."""
    return stamp.ToDatetime(tzinfo=datetime.timezone.utc)
