"""For resource servers: whether a credential is good now.

Each check asks the broker, unless it answered for the same credential a moment ago and the revocation feed, which is
followed meanwhile, has told of nothing since that could concern it. A feed that is silent, broken or incomplete is no
ground to believe anything: then each check asks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from grpc import aio

from .backoff import Backoff
from .client import DEFAULT_SERVER, place_of
from .credential import Lease
from .errors import ConfigError, Forked, MayflyError, Unreachable
from .identity import CertificateFiles, Identity, SocketUser, detect
from .link import Link
from .rpc import Presented
from .secret import SecretText
from .status import error_of
from .v1 import types_pb2, verifier_pb2

SCOPE_BYTES = 12
SILENCE_SECONDS = 30.0
"""The broker says something more often than this."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
TOKEN_MOST_BYTES = 8192

log = logging.getLogger("mayfly")


@dataclass(frozen=True)
class Active:
    """What the broker says of a credential that is good now."""

    lease: Lease
    """Who may do what, for whom, until when."""
    issuer: str
    subject: str
    """The workload's SPIFFE ID."""


@dataclass(frozen=True)
class _Kept:
    """An answer, and what could end it."""

    active: Active
    until: float
    scopes: frozenset[bytes] | None
    """None when they are not known: then every event could concern it."""

    def named(self) -> frozenset[bytes | None]:
        """Where it is found by scope."""
        return frozenset([None]) if self.scopes is None else frozenset(self.scopes)


class Answers:
    """The answers that may be given again. Bounded; knows nothing of the network.

    Invariant: an answer is given again only while the feed stands, and not after an event that could concern it.
    """

    def __init__(self, entries: int, max_age: float, max_silence: float) -> None:
        self._entries = entries
        self._max_age = max_age
        self._max_silence = max_silence
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        # By scope, so that an event costs what it ends; under None are those whose scopes are not known.
        self._by_scope: dict[bytes | None, set[bytes]] = {}
        self._incarnation = 0
        self._number = 0
        self._is_complete = False
        self._heard = 0.0

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self) -> None:
        """The feed begins anew: nothing is known, and nothing kept."""
        self._clear()
        self._is_complete, self._incarnation, self._number = False, 0, 0

    def apply(self, message: verifier_pb2.WatchRevocationsResponse, now: float) -> None:
        """The next message of the feed."""
        revision = message.revision
        if revision.incarnation != self._incarnation or revision.number < self._number:
            self._clear()
            self._incarnation, self._number = revision.incarnation, 0
        for event in message.events:
            self._number = max(self._number, event.revision.number)
            if event.kind != verifier_pb2.REVOCATION_KIND_LIFT:
                self._end(bytes(event.scope_id))
        self._is_complete |= message.complete
        self._heard = now

    def find(self, key: bytes, now: float) -> Active | None:
        """An answer that holds."""
        kept = self._kept.get(key)
        if kept is None or not self._stands(now):
            return None
        if now >= kept.until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.active

    def keep(
        self,
        key: bytes,
        active: Active,
        revision: types_pb2.Revision,
        scopes: frozenset[bytes] | None,
        now: float,
        lives: float,
    ) -> None:
        """Remembers an answer, unless the feed has told of something that the answer does not know yet."""
        knows_all = revision.incarnation == self._incarnation and revision.number >= self._number
        if self._entries <= 0 or not knows_all or not self._stands(now):
            return
        self._drop(key)
        kept = self._kept[key] = _Kept(active, now + min(self._max_age, lives), scopes)
        for scope in kept.named():
            self._by_scope.setdefault(scope, set()).add(key)
        while len(self._kept) > self._entries:
            self._drop(next(iter(self._kept)))

    def _stands(self, now: float) -> bool:
        return self._is_complete and now - self._heard <= self._max_silence

    def _end(self, scope: bytes) -> None:
        for key in [*self._by_scope.get(scope, ()), *self._by_scope.get(None, ())]:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        for scope in () if kept is None else kept.named():
            keys = self._by_scope[scope]
            keys.discard(key)
            if not keys:
                del self._by_scope[scope]

    def _clear(self) -> None:
        self._kept.clear()
        self._by_scope.clear()


class AsyncVerifier:
    """Answers whether a credential is good now: `async with AsyncVerifier(...) as verifier`.

    Args:
        audience: the one this resource server answers to; empty checks against all it is registered for.
        tenant: whose resource server this is; needed for the feed unless it is registered for several.
        server: as are `identity`, `ca` and `server_name`, see `AsyncClient`.
        identity: a certificate, or the user at the broker's socket; identity tokens are for workloads.
        ca: the roots that the broker's certificate must come from.
        server_name: the name that it must carry.
        max_age: seconds for which an answer may be given again; 0 asks the broker each time and follows no feed.
        max_silence: seconds of silence of the feed, after which nothing is given again; at most 30.
        entries: how many answers are kept at most, some 1 KiB each; the least used goes first.
        patience: seconds for which a broker that is away is tried.

    An answer that is given again is not counted as a use by the broker.
    """

    def __init__(
        self,
        audience: str = "",
        *,
        tenant: str = "",
        server: str | None = None,
        identity: Identity | None = None,
        ca: str | os.PathLike[str] | None = None,
        server_name: str | None = None,
        max_age: float = 0.0,
        max_silence: float = 15.0,
        entries: int = 10_000,
        patience: float = 5.0,
    ) -> None:
        server = server or os.environ.get("MAYFLY_SERVER") or DEFAULT_SERVER
        identity = identity if identity is not None else detect(server)
        if not isinstance(identity, CertificateFiles | SocketUser):
            raise ConfigError("a verifier comes with a certificate, or as the user at the broker's socket")
        if not 0 <= max_silence <= SILENCE_SECONDS:
            raise ConfigError(f"max_silence is from 0 to {SILENCE_SECONDS:.0f} seconds")
        proof = identity if isinstance(identity, CertificateFiles) else None
        self._link = Link(place_of(server, identity, ca, server_name), proof)
        self._audience = audience
        self._tenant = tenant
        self._patience = patience
        self._answers = Answers(entries if max_age > 0 else 0, max_age, max_silence)
        self._follows = max_age > 0
        self._follower: asyncio.Task[None] | None = None
        self._complete = asyncio.Event()
        self._pid = os.getpid()

    async def __aenter__(self) -> AsyncVerifier:
        if self._follows and self._follower is None:
            self._follower = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops following the feed and closes the connection."""
        if self._pid != os.getpid():
            return
        if self._follower is not None:
            self._follower.cancel()
            with suppress(asyncio.CancelledError):
                await self._follower
            self._follower = None
        await self._link.close()

    async def settled(self) -> None:
        """Waits until the feed stands, so that answers may be given again."""
        await self._complete.wait()

    async def token(self, token: str, presented_certificate: bytes | None = None) -> Active | None:
        """Whether a JWT or reference token is good now; None when it is not: answer 401.

        `presented_certificate` is the DER of the client certificate that the request came with, as TLS proved it:
        a bound token is good with its own only. Limit: 8,192 bytes; longer ones are not good.

        Raises:
            MayflyError: when the broker cannot be asked. Refuse then.
        """
        if len(token) > TOKEN_MOST_BYTES or not token.isascii():
            return None
        return await self._check(
            "token", SecretText(token).encode(), _scopes_of(token), presented_certificate, token=token
        )

    async def certificate(self, leaf_der: bytes) -> Active | None:
        """Whether a client certificate of a workload is good now, by its DER; TLS must have proved its key.

        Raises:
            MayflyError: when the broker cannot be asked. Refuse then.
        """
        return await self._check("certificate", leaf_der, None, None, certificate_der=leaf_der)

    async def _check(
        self, form: str, content: bytes, scopes: frozenset[bytes] | None, presented: bytes | None, **credential: object
    ) -> Active | None:
        if self._pid != os.getpid():
            raise Forked("this verifier was made before a fork: make another one in this process")
        presented_sha256 = b"" if presented is None else hashlib.sha256(presented).digest()
        # Of fixed lengths, so that no two questions are one.
        key = hashlib.sha256(hashlib.sha256(content).digest() + presented_sha256 + form.encode()).digest()
        kept = self._answers.find(key, time.monotonic())
        if kept is not None:
            return kept
        request = Presented(
            verifier_pb2.IntrospectRequest(
                audience=self._audience,
                presented_certificate_sha256=presented_sha256,
                **credential,  # type: ignore[arg-type]
            )
        )
        asked = time.monotonic()
        answer = await self._link.call(self._patience, lambda calls: calls.introspect, request)
        if not answer.active:
            return None
        active = Active(Lease.of(answer.lease), answer.issuer, answer.subject)
        lives = active.lease.expires.timestamp() - time.time()
        self._answers.keep(key, active, answer.revision, scopes, asked, lives)
        return active

    async def _follow(self) -> None:
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            try:
                await self._one_feed(backoff)
            except MayflyError as error:
                log.warning("the revocation feed broke; asking the broker each time: %s", error)
            self._answers.begin()
            self._complete.clear()
            await asyncio.sleep(backoff.pause())

    async def _one_feed(self, backoff: Backoff) -> None:
        """From its beginning, since nothing is kept over a gap."""
        async with self._link.connection() as connection:
            call = connection.calls.watch_revocations(verifier_pb2.WatchRevocationsRequest(tenant=self._tenant))
            try:
                while True:
                    message = await asyncio.wait_for(call.read(), SILENCE_SECONDS)
                    if not isinstance(message, verifier_pb2.WatchRevocationsResponse):
                        raise Unreachable("the broker closed the feed")
                    self._answers.apply(message, time.monotonic())
                    backoff.succeeded()
                    if message.complete:
                        self._complete.set()
            except aio.AioRpcError as failure:
                self._link.lost(connection)
                raise error_of(failure) from failure
            except asyncio.TimeoutError:
                self._link.lost(connection)
                raise Unreachable("the feed is silent") from None
            finally:
                call.cancel()


def _scopes_of(unverified_token: str) -> frozenset[bytes] | None:
    """The scopes that a JWT says it has (docs/token-format.md). Used only of a token that the broker found good."""
    parts = unverified_token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ids = base64.urlsafe_b64decode(claims["mf_scopes"] + "=" * (-len(claims["mf_scopes"]) % 4))
    except (IndexError, ValueError, KeyError, TypeError):
        return None
    if not ids or len(ids) % SCOPE_BYTES:
        return None
    return frozenset(ids[at : at + SCOPE_BYTES] for at in range(0, len(ids), SCOPE_BYTES))
