"""One class for each reason of a refusal. Made by `tools/reasons.py` from docs/errors.md; do not edit."""

from __future__ import annotations

from .errors import (
    Advice,
    AwayForNow,
    BadRequest,
    Denied,
    Exhausted,
    NotInThisState,
    NotProven,
    Refused,
    TaskOver,
)


class ActionNotGranted(Denied):
    """The grant does not allow an action that was asked for."""

    mend = "Ask for less, or have the grant's `actions` widened."


class AttestationOverdue(Denied):
    """Nobody has confirmed in time that the grant is still needed."""

    mend = "Have its owner run `mayfly attest`."


class AudienceNotGranted(Denied):
    """The grant does not allow an audience that was asked for."""

    mend = "Ask for another, or have the grant's `audiences` widened."


class AudienceRequired(BadRequest):
    """A credential is always for someone."""

    mend = "Name at least one audience."


class Barred(Denied):
    """Something that the request depends on is barred: tenant, partner, grant, workload or proof."""

    mend = "Ask the grant's owner; an operator lifts it with `mayfly lift`."


class BindingNotForKind(BadRequest):
    """Certificates are bound to their key by themselves."""

    mend = "Leave `binding` out."


class BindingRequired(Denied):
    """The grant demands tokens bound to the caller's certificate."""

    mend = "Come with a client certificate and do not ask for an unbound token."


class CertificateRequired(Denied):
    """Binding was asked for on a connection without a client certificate."""

    mend = "Come with a client certificate."


class ClientKeyRequired(NotProven):
    """Identity tokens of this issuer count with a key of the client's own only."""

    mend = "Connect with a self-signed client certificate."


class DnsNamesNotForKind(BadRequest):
    """Only certificates carry DNS names."""

    mend = "Leave `dns_names` out, or ask for a certificate."


class DnsNameNotGranted(Denied):
    """The grant does not allow a DNS name that was asked for."""

    mend = "Ask for another, or have the grant's `dns_names` widened."


class EnvironmentMismatch(Denied):
    """The grant is for another environment than the workload's."""

    mend = "Use the grant of your environment."


class GrantAmbiguous(BadRequest):
    """Two grants fit."""

    mend = "Name one in `grant`."


class GrantDormant(Denied):
    """The grant was not used for as long as the tenant's `dormant_after`."""

    mend = "Have its owner run `mayfly attest`, or retire it."


class GrantExpired(Denied):
    """The grant's time is over."""

    mend = "Have it renewed in the trust map."


class IdempotencyKeyReused(NotInThisState):
    """The key was used for another request."""

    mend = "Use a new key for a new request."


class IdentityIssuerUnavailable(AwayForNow):
    """The issuer's keys cannot be had, so its tokens cannot be checked."""

    advice = Advice.AGAIN
    mend = "Try again; the operator sees why in `mayfly issuer list`."


class IdentityTokenExpired(NotProven):
    """The identity token is over, by its own word or by the issuer's `max_age_seconds`."""

    mend = "Get a fresh one; or hold the task and go on with its key."


class IdentityTokenRefused(NotProven):
    """The identity token is not believed, or not for this broker."""

    mend = "The operator sees why in the event `identity.refused`, and with `mayfly issuer test`."


class IdentityTokenSpent(NotProven):
    """The identity token was used: with another key, which is an alarm, or with this one for another task."""

    mend = "Name the task that it opened, or get a fresh token."


class Internal(Refused):
    """The broker failed."""

    mend = "Its log has the cause; report it."


class InvalidField(BadRequest):
    """A field of the request is wrong."""

    mend = "The violation says what would be right."


class IssuingHeld(AwayForNow):
    """Nothing is issued for now: the clock jumped, the store failed or is full, its anchor cannot be written, or it was restored or put back.

    Ends go on.
    """

    advice = Advice.AGAIN
    mend = "Try again later; the operator sees why in `mayfly status`."


class KindNotGranted(Denied):
    """The grant does not allow this kind of credential."""

    mend = "Ask for another kind, or have the grant's `kinds` widened."


class LeaseEnded(NotInThisState):
    """The lease is over."""

    advice = Advice.OVER
    mend = "Issue anew."


class LifetimeTooShort(NotInThisState):
    """Less than a second would be left before task, grant or proof ends."""

    mend = "Open a new task, or renew your own certificate."


class NotAllowed(Denied):
    """The role or scope of the caller does not reach so far."""

    mend = "Ask an operator whose does."


class NotFound(Refused):
    """There is none of this name, or none that the caller may know of."""

    mend = "Check the name and who you are."


class ParentEndsSooner(NotInThisState):
    """The parent task ends before this one would."""

    mend = "Ask for less time."


class PartnerNotGranted(Denied):
    """No grant of the tenant names the partner."""

    mend = "Check the partner, or have a grant added."


class PurposeNotGranted(Denied):
    """No grant of the partner is for the purpose."""

    mend = "Check the purpose, or have it granted."


class QuotaUsedUp(Exhausted):
    """Too many leases of the scope named in `quota` are live."""

    mend = "Release what is not needed, or have the limit raised."


class RevisionGone(Refused):
    """The revision to resume from is no longer kept, or of another incarnation of the store."""

    mend = "Fetch everything anew and watch from there."


class SourceNotGranted(Denied):
    """The grant is for callers of other networks."""

    mend = "Ask from there, or have the grant's `sources` widened."


class Suspended(NotInThisState):
    """The task or lease is suspended."""

    mend = "Wait until an operator lifts the suspension."


class TaskEnded(NotInThisState, TaskOver):
    """The task is over; it never reopens."""

    advice = Advice.OVER
    mend = "Open a new one."


class TaskTooLong(Denied):
    """No usable grant allows a task so long."""

    mend = "Ask for less time."


class TooManyRequests(Exhausted):
    """The caller, or all callers, ask more than the broker takes."""

    advice = Advice.AGAIN
    mend = "Wait as `RetryInfo` says, then try again."


class TrustMapInvalid(BadRequest):
    """The trust files have problems; nothing was applied."""

    mend = "Each violation gives path and line."


class TtlTooLong(Denied):
    """More life was asked for than the grant allows."""

    mend = "Ask for less, or leave `ttl_seconds` out."


class Unavailable(AwayForNow):
    """The broker is stopping, or cannot use its store or its anchor.

    An end that says *it is in force, but the anchor cannot be written* holds; repeat it.
    """

    advice = Advice.AGAIN
    mend = "Try again with growing pauses."


class UnknownGrant(Denied):
    """The tenant has no such grant."""

    mend = "Check its name."


class UnknownWorkload(Denied):
    """The caller is no workload of the tenant, or there is no such tenant."""

    mend = "Check the tenant, and the workload's selector against your proof."


class Unproven(NotProven):
    """The caller proved nothing, nothing that counts any more, or two things at once."""

    advice = Advice.PROVE_ANEW
    mend = "Come with a valid client certificate, or with an identity token."


class WorkloadAmbiguous(Denied):
    """The proof selects two workloads of the tenant. Callers are told `UNKNOWN_WORKLOAD`; this stands in events."""

    mend = "Make the selectors exclude each other."


class WorkloadNotGranted(Denied):
    """The grant is for other workloads."""

    mend = "Use another grant, or have the workload added."


REASONS: dict[str, type[Refused]] = {
    "ACTION_NOT_GRANTED": ActionNotGranted,
    "ATTESTATION_OVERDUE": AttestationOverdue,
    "AUDIENCE_NOT_GRANTED": AudienceNotGranted,
    "AUDIENCE_REQUIRED": AudienceRequired,
    "BARRED": Barred,
    "BINDING_NOT_FOR_KIND": BindingNotForKind,
    "BINDING_REQUIRED": BindingRequired,
    "CERTIFICATE_REQUIRED": CertificateRequired,
    "CLIENT_KEY_REQUIRED": ClientKeyRequired,
    "DNS_NAMES_NOT_FOR_KIND": DnsNamesNotForKind,
    "DNS_NAME_NOT_GRANTED": DnsNameNotGranted,
    "ENVIRONMENT_MISMATCH": EnvironmentMismatch,
    "GRANT_AMBIGUOUS": GrantAmbiguous,
    "GRANT_DORMANT": GrantDormant,
    "GRANT_EXPIRED": GrantExpired,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused,
    "IDENTITY_ISSUER_UNAVAILABLE": IdentityIssuerUnavailable,
    "IDENTITY_TOKEN_EXPIRED": IdentityTokenExpired,
    "IDENTITY_TOKEN_REFUSED": IdentityTokenRefused,
    "IDENTITY_TOKEN_SPENT": IdentityTokenSpent,
    "INTERNAL": Internal,
    "INVALID_FIELD": InvalidField,
    "ISSUING_HELD": IssuingHeld,
    "KIND_NOT_GRANTED": KindNotGranted,
    "LEASE_ENDED": LeaseEnded,
    "LIFETIME_TOO_SHORT": LifetimeTooShort,
    "NOT_ALLOWED": NotAllowed,
    "NOT_FOUND": NotFound,
    "PARENT_ENDS_SOONER": ParentEndsSooner,
    "PARTNER_NOT_GRANTED": PartnerNotGranted,
    "PURPOSE_NOT_GRANTED": PurposeNotGranted,
    "QUOTA_USED_UP": QuotaUsedUp,
    "REVISION_GONE": RevisionGone,
    "SOURCE_NOT_GRANTED": SourceNotGranted,
    "SUSPENDED": Suspended,
    "TASK_ENDED": TaskEnded,
    "TASK_TOO_LONG": TaskTooLong,
    "TOO_MANY_REQUESTS": TooManyRequests,
    "TRUST_MAP_INVALID": TrustMapInvalid,
    "TTL_TOO_LONG": TtlTooLong,
    "UNAVAILABLE": Unavailable,
    "UNKNOWN_GRANT": UnknownGrant,
    "UNKNOWN_WORKLOAD": UnknownWorkload,
    "UNPROVEN": Unproven,
    "WORKLOAD_AMBIGUOUS": WorkloadAmbiguous,
    "WORKLOAD_NOT_GRANTED": WorkloadNotGranted,
}
"""By the reason's code."""
