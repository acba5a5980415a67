"""A credential that is replaced by a successor well before it ends.

A successor is a lease of its own under the same task: whoever read the credential a moment ago can still use it until
its own end. For certificates the key stays the same, so that a successor replaces one file.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from .backoff import Backoff
from .credential import Credential, Issued, IssuedCertificate, IssuedToken, Kind, Wanted, credential_of
from .errors import Advice, CredentialEnded, HandoverError, Incomplete, MayflyError, TaskOver
from .keys import Key
from .secret import SecretText
from .tls import RenewingContext, client_context

if TYPE_CHECKING:
    import os

    from grpc import aio

    from .link import Carried, Link
    from .rpc import Calls
    from .v1 import broker_pb2

LEAST_LIFE_SECONDS = 1.0
"""Nobody renews more often than this, unless a life is shorter."""
ALMOST_SECONDS = 5.0
"""What ends so soon is not handed to anybody who asks for one that lives."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0

log = logging.getLogger("mayfly")

Form = TypeVar("Form", bound=Credential)
HandOver = Callable[[Form], None]


class Standing:
    """What the credentials of a task know of it."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.over: TaskOver | None = None

    def check(self) -> None:
        """Raises TaskOver when the task is over."""
        if self.over is not None:
            # A new one, so that tracebacks do not grow on the first.
            raise TaskOver(str(self.over), self.over.end_reason)


class Renewing(Generic[Form]):
    """The worker behind a credential: knows the newest one and gets the next."""

    def __init__(
        self,
        link: Link,
        carried: Carried,
        standing: Standing,
        wanted: Wanted,
        form: type[Form],
        hand_over: HandOver[Form],
    ) -> None:
        self.standing = standing
        self._link = link
        self._carried = carried
        self._wanted = wanted
        self._form = form
        self._hand_over = hand_over
        self._key = Key() if wanted.kind is Kind.X509 else None
        self._newest: Form | None = None
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def start(self, patience: float) -> None:
        """Gets the first one and begins to renew it.

        Raises:
            MayflyError: when the broker refuses or cannot be reached, or the first one cannot be handed over.
        """
        self._put(await self._issue(patience))
        self._worker = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """No successor will come."""
        if self._worker is not None:
            self._worker.cancel()
        self._changed.set()

    @property
    def newest(self) -> Form:
        """The newest one, which may have ended when the broker was away for long."""
        if self._newest is None:
            raise Incomplete("the credential was not issued yet")
        return self._newest

    def latest(self) -> Form:
        """The newest one, if it lives. Does not wait; may be called from any thread.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when it has ended.
        """
        self.standing.check()
        newest = self.newest
        if newest.ends <= time.monotonic():
            raise CredentialEnded(f"lease {newest.lease.lease_id} has ended and there is no successor yet")
        return newest

    def ready(self) -> Form | None:
        """The newest one, unless it has ended or nearly so. Does not wait; may be called from any thread.

        Raises:
            TaskOver: when the task is over.
        """
        self.standing.check()
        newest = self.newest
        return newest if newest.ends > time.monotonic() + min(ALMOST_SECONDS, newest.life / 10) else None

    async def live(self, patience: float) -> Form:
        """One that lives: when the newest has ended, or nearly so, waits for a successor for `patience` seconds.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when there is none by then.
        """
        give_up = time.monotonic() + patience
        while True:
            ready = self.ready()
            if ready is not None:
                return ready
            self._changed.clear()
            self._hurry.set()
            left = give_up - time.monotonic()
            # None that lives longer will come: what is there is good until its end.
            if left <= 0 or self._worker is None or self._worker.done():
                return self.latest()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                return self.latest()

    async def replace(self, used: Form, patience: float) -> Form:
        """A successor of one that was refused where it was used; the newest, when that is another one already."""
        if self.newest is used:
            self._put(await self._issue(patience))
        return self.latest()

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        at = due(self.newest, random.random)
        try:
            while at is not None:
                await self._until(at)
                try:
                    self._put(await self._issue(0.0))
                except MayflyError as error:
                    if error.advice is Advice.OVER or self.standing.over is not None:
                        return
                    log.warning("a credential of task %s could not be renewed; trying again: %s", *self._named(error))
                    at = time.monotonic() + max(backoff.pause(), error.retry_after)
                else:
                    backoff.succeeded()
                    at = due(self.newest, random.random)
        finally:
            self._changed.set()

    def _named(self, error: MayflyError) -> tuple[str, MayflyError]:
        return self.standing.task_id, error

    async def _until(self, at: float) -> None:
        """Waits for a moment, or until somebody is in a hurry."""
        self._hurry.clear()
        try:
            await asyncio.wait_for(self._hurry.wait(), max(at - time.monotonic(), 0.0))
        except asyncio.TimeoutError:
            return

    def _put(self, credential: Form) -> None:
        try:
            self._hand_over(credential)
        except OSError as error:
            raise HandoverError(f"cannot hand the credential over: {error}") from error
        self._newest = credential
        self._changed.set()

    async def _issue(self, patience: float) -> Form:
        credential = await issue(self._link, self._carried, self.standing.task_id, self._wanted, self._key, patience)
        if not isinstance(credential, self._form):
            raise Incomplete("the broker sent a credential of another kind")
        return credential


class AsyncToken:
    """A token that renews itself ahead of its end, until its task is over."""

    def __init__(self, worker: Renewing[IssuedToken]) -> None:
        self._worker = worker

    def __repr__(self) -> str:
        return f"AsyncToken(task={self._worker.standing.task_id!r}, lease={self.newest.lease.lease_id!r})"

    @property
    def newest(self) -> IssuedToken:
        """The newest one with its lease; it may have ended when the broker was away for long."""
        return self._worker.newest

    async def value(self, patience: float = 30.0) -> SecretText:
        """The text of one that lives, for the next request; its `repr` is redacted. Ask again for each request.

        Waits up to `patience` seconds, when the newest has ended because the broker was away.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when there is none by then.
        """
        return (await self._worker.live(patience)).value()

    def ready(self) -> SecretText | None:
        """The text of the newest one, or None when it has ended or nearly so. Does not wait.

        Raises:
            TaskOver: when the task is over.
        """
        ready = self._worker.ready()
        return None if ready is None else ready.value()

    def latest(self) -> SecretText:
        """The text of the newest one, without waiting. May be called from any thread.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when it has ended.
        """
        return self._worker.latest().value()

    async def replace(self, patience: float = 30.0) -> SecretText:
        """A successor now, when a service did not take the newest one.

        Raises:
            MayflyError: when there is none.
        """
        return (await self._worker.replace(self.newest, patience)).value()


class AsyncCertificate:
    """A certificate that renews itself ahead of its end, until its task is over. Its key was made here and stays."""

    def __init__(self, worker: Renewing[IssuedCertificate]) -> None:
        self._worker = worker

    def __repr__(self) -> str:
        return f"AsyncCertificate(task={self._worker.standing.task_id!r}, lease={self.newest.lease.lease_id!r})"

    @property
    def newest(self) -> IssuedCertificate:
        """The newest one; it may have ended when the broker was away for long."""
        return self._worker.newest

    async def value(self, patience: float = 30.0) -> IssuedCertificate:
        """One that lives. Waits up to `patience` seconds, when the newest has ended because the broker was away.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when there is none by then.
        """
        return await self._worker.live(patience)

    def latest(self) -> IssuedCertificate:
        """The newest one, without waiting. May be called from any thread.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when it has ended.
        """
        return self._worker.latest()

    def ssl_context(self, roots: str | os.PathLike[str] | None = None) -> RenewingContext:
        """A context for clients whose certificate is always the current one; see `mayfly.tls`."""
        return client_context(self.latest, roots)


def due(credential: Credential, chance: Callable[[], float]) -> float | None:
    """When a successor is due, by `time.monotonic()`; None when none could live longer.

    Between half and two thirds of a life: spread, so that credentials that were issued at one moment are not renewed at
    one moment, and early, so that a broker may be away for a third of a life.
    """
    if not credential.is_renewable:
        return None
    life = credential.life
    issued = credential.ends - life
    return max(issued + life / 2 + life / 6 * chance(), issued + min(LEAST_LIFE_SECONDS, life * 0.9))


async def issue(
    link: Link, carried: Carried, task_id: str, wanted: Wanted, key: Key | None, patience: float
) -> IssuedToken | IssuedCertificate:
    """Asks for one credential under a task. A lost answer is asked for again: the broker ends the first lease then."""
    asked = time.monotonic()

    def method(calls: Calls) -> aio.UnaryUnaryMultiCallable[broker_pb2.IssueRequest, Issued]:
        nonlocal asked
        # A life is counted from the attempt that was answered.
        asked = time.monotonic()
        return calls.issue

    request = wanted.request(task_id, key, idempotency_key())
    issued = await link.call(patience, method, request, carried)
    return credential_of(issued, key, asked)


def idempotency_key() -> str:
    """One that nobody else uses: 128 bits."""
    return secrets.token_hex(16)
