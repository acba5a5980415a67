"""A task that is held open, and completed on every way out."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from . import files
from .credential import Binding, Credential, IssuedCertificate, IssuedToken, Kind, Wanted, time_of
from .errors import Forked, Incomplete, TaskOver
from .hold import Holding, HoldState, Listener
from .keys import Key
from .open_task import PATIENCE_AT_END_SECONDS, PATIENCE_SECONDS, Opened, OpenTask, Way, Work
from .renewing import AsyncCertificate, AsyncToken, idempotency_key, issue
from .v1 import broker_pb2

Door = Callable[[], Awaitable[Way]]
"""Finds the way to the broker when the task is opened."""


class AsyncTask:
    """One task: `async with client.task(...) as task`.

    Opened on the way in, held in the background, completed on every way out: at the end of the block, by an exception,
    by cancellation. Should this process die, the hold breaks and the broker ends the task after its grace time.

    At the end of a block that ran to its end, TaskOver is raised when the task had ended before by other means:
    what the block did last was done without live credentials. An exception of the block itself goes on as it is.
    """

    def __init__(
        self,
        door: Door,
        work: Work,
        siblings: set[OpenTask],
        pending: set[asyncio.Future[None]],
        *,
        patience: float = PATIENCE_SECONDS,
        on_change: Listener | None = None,
        interrupt: bool = False,
    ) -> None:
        self._door = door
        self._work = work
        self._siblings = siblings
        self._pending = pending
        self._patience = patience
        self._on_change = on_change
        self._interrupts = interrupt
        self._body: asyncio.Task[object] | None = None
        self._is_interrupted = False
        self._open: OpenTask | None = None
        self._opened: Opened | None = None

    def __repr__(self) -> str:
        return f"AsyncTask({'not open' if self._opened is None else self._opened.task_id!r})"

    async def open(self) -> AsyncTask:
        """Opens the task and begins to hold it. A retry after a lost answer is answered with the same task.

        Raises:
            MayflyError: when the broker refuses or cannot be reached in time. Should the answer be lost for good, the
                task is not held and ends by itself.
        """
        if self._open is not None:
            raise TaskOver("a task is opened once")
        way = await self._door()
        work = self._work
        request = broker_pb2.OpenTaskRequest(
            tenant=work.tenant,
            partner=work.partner,
            purpose=work.purpose,
            parent_task_id=work.parent_task_id,
            approval_id=work.approval_id,
            deadline_seconds=work.deadline_seconds,
            idempotency_key=idempotency_key(),
            hold=True,
        )
        try:
            reply = await way.link.call(self._patience, lambda calls: calls.open_task, request, way.carried)
            if not reply.HasField("task"):
                raise Incomplete("the broker sent no task")
        except BaseException:
            if way.is_own:
                await way.link.close()
            raise
        task = reply.task
        way.carried.go_on_with(task.task_id, held=False)
        self._opened = Opened(
            task.task_id, task.tenant, task.partner, task.purpose, task.workload, time_of(task.deadline)
        )
        self._open = OpenTask(way, task.task_id, self._siblings, self._pending)
        # The holder must not keep a task that nobody knows any more.
        heard: weakref.WeakMethod[Listener] = weakref.WeakMethod(self._heard)
        self._open.hold.listeners.append(lambda holding: _pass_on(heard, holding))
        return self

    async def __aenter__(self) -> AsyncTask:
        await self.open()
        self._body = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body = None
        task = self._open
        if task is None or task.pid != os.getpid():
            return
        ended_elsewhere = task.standing.over is not None and not task.is_completed_here
        is_ours = self._is_interrupted and kind is asyncio.CancelledError
        finishing = task.finish()
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:
            # An interruption that came when the block had just ended.
            if not self._is_interrupted or is_ours:
                raise
            is_ours = True
            await asyncio.shield(finishing)
        if is_ours:
            _uncancel()
        if ended_elsewhere and (kind is None or is_ours):
            task.standing.check()

    def __del__(self) -> None:
        task = self._open
        if task is None or task.standing.over is not None or task.pid != os.getpid() or task.loop.is_closed():
            return
        warnings.warn(f"{self!r} was not completed", ResourceWarning, stacklevel=2, source=self)
        with suppress(RuntimeError):
            task.loop.call_soon_threadsafe(task.finish)

    async def complete(self, patience: float = PATIENCE_AT_END_SECONDS) -> bool:
        """Ends the task and everything under it; False when it had ended before. Completing twice is not an error.

        A broker that is away is tried for `patience` seconds: then the task ends by itself, after the grace time.

        Raises:
            MayflyError: when the broker could not be told.
        """
        return await self._live().complete(patience)

    @property
    def opened(self) -> Opened:
        """The task as the broker opened it."""
        if self._opened is None:
            raise TaskOver("the task is not open yet")
        return self._opened

    @property
    def id(self) -> str:
        """24 hex digits. Not a secret."""
        return self.opened.task_id

    @property
    def holding(self) -> Holding:
        """What is known of the hold now."""
        return self._live().hold.now

    @property
    def is_over(self) -> bool:
        """Whether the task is known to be over."""
        return self._live().standing.over is not None

    def check(self) -> None:
        """Returns while the task is not known to be over.

        Raises:
            TaskOver: when it is; `end_reason` says why.
        """
        self._live().standing.check()

    async def settled(self) -> Holding:
        """Waits until the hold stands or the task is over."""
        return await self._live().hold.settled()

    async def token(
        self,
        audiences: Sequence[str],
        actions: Sequence[str] = (),
        *,
        kind: Kind = Kind.JWT,
        ttl_seconds: int = 0,
        grant: str = "",
        binding: Binding = Binding.AUTO,
        file: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> AsyncToken:
        """A token that renews itself ahead of its end, with jitter, until the task is over.

        With `file`, each is written there too before anybody sees it: in one step, mode 0600, removed with the task.

        Raises:
            MayflyError: when the broker refuses, or cannot be reached in `patience` seconds, or the file fails.
        """
        task = self._live()
        path = None if file is None else Path(file)

        def hand_over(token: IssuedToken) -> None:
            if path is not None:
                task.write(path, token.value())

        wanted = Wanted(kind, audiences, actions, grant=grant, ttl_seconds=ttl_seconds, binding=binding)
        return AsyncToken(await task.renew(wanted, IssuedToken, patience, hand_over))

    async def static_secret(
        self,
        name: str,
        *,
        ttl_seconds: int = 0,
        grant: str = "",
        file: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> AsyncToken:
        """A static secret: a vendor's key that an operator put into the broker.

        Asked for again ahead of its lease's end, so that a rotation is seen: ask `value()` for each use. `file` as for
        tokens.

        Raises:
            MayflyError: when the broker refuses, or cannot be reached in `patience` seconds, or the file fails.
        """
        task = self._live()
        path = None if file is None else Path(file)

        def hand_over(secret: IssuedToken) -> None:
            if path is not None:
                task.write(path, secret.value())

        wanted = Wanted(Kind.SECRET, grant=grant, ttl_seconds=ttl_seconds, secret=name)
        return AsyncToken(await task.renew(wanted, IssuedToken, patience, hand_over))

    async def certificate(
        self,
        audiences: Sequence[str],
        actions: Sequence[str] = (),
        *,
        dns_names: Sequence[str] = (),
        ttl_seconds: int = 0,
        grant: str = "",
        folder: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> AsyncCertificate:
        """A certificate that renews itself ahead of its end; its key is made here and stays the same.

        With `folder`, `key.pem`, `ca.pem` and `cert.pem` are written there, modes as for tokens; the folder is made
        with mode 0700 when it is not there.

        Raises:
            MayflyError: when the broker refuses, or cannot be reached in `patience` seconds, or a file fails.
        """
        task = self._live()
        place = None if folder is None else Path(folder)

        def hand_over(certificate: IssuedCertificate) -> None:
            if place is not None:
                files.private_folder(place)
                task.write(place / "key.pem", certificate.key_pem.expose())
                task.write(place / "ca.pem", certificate.roots_pem)
                # Last, so that whoever waits for it finds the others.
                task.write(place / "cert.pem", certificate.chain_pem)

        wanted = Wanted(Kind.X509, audiences, actions, dns_names, grant, ttl_seconds)
        return AsyncCertificate(await task.renew(wanted, IssuedCertificate, patience, hand_over))

    async def issue(self, wanted: Wanted, patience: float = PATIENCE_SECONDS) -> IssuedToken | IssuedCertificate:
        """One credential that is not renewed.

        Raises:
            MayflyError: when the broker refuses, or cannot be reached in `patience` seconds.
        """
        task = self._live()
        task.standing.check()
        key = Key() if wanted.kind is Kind.X509 else None
        return await issue(task.way.link, task.way.carried, self.id, wanted, key, patience)

    async def release(self, credential: Credential, patience: float = PATIENCE_SECONDS) -> bool:
        """Ends one lease before its time; False when it had ended before.

        Raises:
            MayflyError: when the broker could not be told.
        """
        way = self._live().way
        request = broker_pb2.ReleaseRequest(lease_id=credential.lease.lease_id)
        reply = await way.link.call(patience, lambda calls: calls.release, request, way.carried)
        return reply.ended_now

    def subtask(
        self,
        purpose: str = "",
        *,
        deadline_seconds: int = 0,
        patience: float = PATIENCE_SECONDS,
        on_change: Listener | None = None,
        interrupt: bool = False,
    ) -> AsyncTask:
        """A task that dies with this one, at the latest."""
        work = self._work
        child = Work(work.tenant, work.partner, purpose or work.purpose, deadline_seconds, self.id)
        parent = self._live()

        async def door() -> Way:
            parent.standing.check()
            return Way(parent.way.link, parent.way.carried.child(), is_own=False)

        return AsyncTask(
            door, child, self._siblings, self._pending, patience=patience, on_change=on_change, interrupt=interrupt
        )

    def _live(self) -> OpenTask:
        if self._open is None:
            raise TaskOver("the task is not open yet")
        if self._open.pid != os.getpid():
            raise Forked("this task belongs to the process that opened it")
        return self._open

    def _heard(self, holding: Holding) -> None:
        if holding.state is HoldState.OVER and self._interrupts and self._body is not None:
            self._is_interrupted = True
            self._body.cancel()
        if self._on_change is not None:
            self._on_change(holding)


def _pass_on(heard: weakref.WeakMethod[Listener], holding: Holding) -> None:
    listener = heard()
    if listener is not None:
        listener(holding)


def _uncancel() -> None:
    """Python 3.11 counts cancellations; this one was ours."""
    current = asyncio.current_task()
    if current is not None and sys.version_info >= (3, 11):
        current.uncancel()
