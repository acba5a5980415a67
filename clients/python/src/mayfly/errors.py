"""What can go wrong, and what to do then.

```text
MayflyError                  .advice, .retryable
|- ConfigError               what this program was given cannot be used      (also a ValueError)
|  `- IdentityError          a file of the identity cannot
|- NoIdentityToken           the platform gives no identity token
|- Unreachable               no connection, or it broke                      retryable
|  `- Untrusted              the broker is not whom it should be
|- TaskOver                  the task is over                                .end_reason
|- CredentialEnded           no live credential could be had in time         retryable
|- Incomplete                the broker's answer lacks what it must have
|- HandoverError             a credential could not be written or passed on  (also an OSError)
|- Forked                    used in another process than the one it was made in
`- Refused                   the broker's word                               .reason, .code, .metadata, .violations
   |- BadRequest, NotProven, Denied, NotInThisState, Exhausted, AwayForNow   by gRPC code
   |  `- one class a reason: `mayfly.reasons`, made from docs/errors.md
   `- a refusal of no known reason is a plain Refused
```
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

DOMAIN = "mayfly"
"""The `google.rpc.ErrorInfo` domain of the broker's own reasons."""


class Advice(enum.Enum):
    """What to do after a failure."""

    AGAIN = "again"
    """The same call may succeed later: not before `retry_after` seconds have passed."""
    PROVE_ANEW = "prove anew"
    """The proof is not good any more: come with a new one."""
    OVER = "over"
    """The task or lease is over for good."""
    STOP = "stop"
    """The same call will not succeed by itself: the request or the trust map has to change."""


class EndReason(enum.Enum):
    """Why something ended; the contract's words."""

    UNSPECIFIED = 0
    EXPIRED = 1
    COMPLETED = 2
    RELEASED = 3
    REVOKED = 4
    SUPERSEDED = 5
    ABANDONED = 6
    NARROWED = 7
    DAMAGED = 8
    NOT_PICKED_UP = 9

    @classmethod
    def of(cls, number: int) -> EndReason:
        """One that a newer broker knows and we do not is unspecified."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNSPECIFIED


class MayflyError(Exception):
    """The root of all errors of this package. None of them holds or shows a secret."""

    advice: ClassVar[Advice] = Advice.STOP
    """What to do now."""
    retry_after: float = 0.0
    """Seconds that a retry should wait at least, when the broker said so."""

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.advice is Advice.AGAIN


class ConfigError(MayflyError, ValueError):
    """What this program was given cannot be used: an address, an audience, a file."""


class IdentityError(ConfigError):
    """A file of the identity cannot be used: absent, too large, open to others, or key and certificate do not fit."""


class NoIdentityToken(MayflyError):
    """The platform that this process runs on gives no identity token; the message says what is missing."""


class Unreachable(MayflyError):
    """There is no connection, it broke, or there was no answer in 10 seconds. Whether the call was done is unknown."""

    advice = Advice.AGAIN


class Untrusted(Unreachable):
    """The broker's certificate is not of the roots given, or carries another name. Waiting does not mend that."""

    advice = Advice.STOP


class TaskOver(MayflyError):
    """The task is over: completed here, revoked, expired or abandoned. Nothing under it can be used any more."""

    advice = Advice.OVER

    def __init__(self, message: str, end_reason: EndReason = EndReason.UNSPECIFIED) -> None:
        super().__init__(message)
        self.end_reason = end_reason


class CredentialEnded(MayflyError):
    """The newest credential has ended, and no successor could be had in time."""

    advice = Advice.AGAIN


class Incomplete(MayflyError):
    """The broker's answer lacks what it must have."""


class HandoverError(MayflyError, OSError):
    """A new credential could not be written or passed on."""


class Forked(MayflyError, RuntimeError):
    """A client was used in a process that was forked from the one that made it: make another one there."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field at fault."""

    field: str
    description: str


class Refused(MayflyError):
    """The broker refused, and nothing of the request was done.

    `reason` is stable and for programs, the message is for people; docs/errors.md lists both.
    """

    mend: ClassVar[str] = ""
    """What would mend it, for people."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: str,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """Such as `GRANT_EXPIRED`; empty when the status is not the broker's own word."""
        self.code = code
        """The gRPC code's name."""
        self.metadata = dict(metadata or {})
        """`grant`, `field`, `what`, `why`, `quota` or `problems`, where that applies."""
        self.violations = violations
        """The fields at fault, as many as fit."""
        self.retry_after = retry_after

    def __str__(self) -> str:
        said = super().__str__()
        parts = [f"{self.reason or self.code}: {said}" if said else self.reason or self.code]
        parts += [f"{violation.field}: {violation.description}" for violation in self.violations]
        return "; ".join(parts)


class BadRequest(Refused):
    """INVALID_ARGUMENT: the request is wrong as it is."""


class NotProven(Refused):
    """UNAUTHENTICATED: who asks is not proven."""


class Denied(Refused):
    """PERMISSION_DENIED: the trust map does not allow it."""


class NotInThisState(Refused):
    """FAILED_PRECONDITION: not as things stand with the task, lease or key."""


class Exhausted(Refused):
    """RESOURCE_EXHAUSTED: too much at once."""


class AwayForNow(Refused):
    """UNAVAILABLE: the broker is there and cannot do it now."""
