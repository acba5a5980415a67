"""What works for a task while it is open: the hold, the credentials and their files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from . import files
from .credential import Credential, Wanted
from .errors import EndReason, MayflyError, TaskOver
from .hold import Hold, Holding, HoldState
from .renewing import Renewing, Standing
from .v1 import broker_pb2

if TYPE_CHECKING:
    import datetime

    from .link import Carried, Link

PATIENCE_SECONDS = 30.0
"""How long a broker that is away is tried, unless said otherwise."""
PATIENCE_AT_END_SECONDS = 5.0
"""How long it is told at the end of a task; after that the task ends by its grace time."""

HOLDER_SECONDS = 1.0
"""How long the end of a task waits for its holder to let go."""

log = logging.getLogger("mayfly")

Form = TypeVar("Form", bound=Credential)


@dataclass(frozen=True)
class Work:
    """What a task is opened for. Words and limits are those of the contract's `OpenTaskRequest`."""

    tenant: str
    partner: str
    purpose: str
    deadline_seconds: int = 0
    """Seconds until it ends by itself, at most 86,400; 0 for the grant's longest."""
    parent_task_id: str = ""
    approval_id: str = ""
    """The approval that the task uses, where a grant needs one."""


@dataclass(frozen=True)
class Way:
    """How the calls of one task reach the broker."""

    link: Link
    carried: Carried
    is_own: bool
    """Whether the link ends with the task."""


@dataclass(frozen=True)
class Opened:
    """A task as the broker opened it."""

    task_id: str
    """24 hex digits. Not a secret."""
    tenant: str
    partner: str
    purpose: str
    workload: str
    deadline: datetime.datetime
    """UTC, by the broker's clock: when it ends by itself."""


class OpenTask:
    """What works for a task while it is open: the hold, the credentials and their files."""

    def __init__(self, way: Way, task_id: str, siblings: set[OpenTask], pending: set[asyncio.Future[None]]) -> None:
        self.way = way
        self._siblings = siblings
        siblings.add(self)
        self.standing = Standing(task_id)
        self.hold = Hold(way.link, way.carried, task_id)
        self.hold.listeners.append(self._heard)
        self.loop = asyncio.get_running_loop()
        self.pending = pending
        self.pid = os.getpid()
        self._renewing: list[Callable[[], None]] = []
        self._files: set[Path] = set()
        self._holder = asyncio.ensure_future(self.hold.run())
        self._completed: asyncio.Future[bool] | None = None

    @property
    def is_completed_here(self) -> bool:
        """Whether this process ended it, or is about to."""
        return self._completed is not None

    async def renew(
        self, wanted: Wanted, form: type[Form], patience: float, hand_over: Callable[[Form], None]
    ) -> Renewing[Form]:
        """Begins to renew a credential."""
        self.standing.check()
        worker = Renewing(self.way.link, self.way.carried, self.standing, wanted, form, hand_over)
        await worker.start(patience)
        self._renewing.append(worker.stop)
        if self.standing.over is not None:
            worker.stop()
            self._remove_files()
        self.standing.check()
        return worker

    def write(self, path: Path, text: str) -> None:
        """Writes a file that goes with the task."""
        self.standing.check()
        self._files.add(path)
        files.write(path, text)

    async def complete(self, patience: float) -> bool:
        """Ends the task and everything under it; whoever asks first decides how long it is tried."""
        if self._completed is None:
            was_over = self.standing.over is not None
            self._end(EndReason.COMPLETED)
            self._completed = asyncio.ensure_future(self._tell(was_over, patience))
        return await asyncio.shield(self._completed)

    async def complete_quietly(self) -> None:
        """For ways out that have something else to say."""
        try:
            await self.complete(PATIENCE_AT_END_SECONDS)
        except MayflyError as error:
            log.warning("task %s is left to its grace time: %s", self.standing.task_id, error)

    def finish(self) -> asyncio.Future[None]:
        """Completes, whether or not somebody waits for it."""
        finishing = asyncio.ensure_future(self.complete_quietly())
        self.pending.add(finishing)
        finishing.add_done_callback(self.pending.discard)
        return finishing

    async def _tell(self, was_over: bool, patience: float) -> bool:  # noqa: FBT001
        request = broker_pb2.CompleteTaskRequest(task_id=self.standing.task_id)
        try:
            if was_over:
                return False
            way = self.way
            reply = await way.link.call(patience, lambda calls: calls.complete_task, request, way.carried)
            return reply.ended_now
        finally:
            self._holder.cancel()
            # Before Python 3.12 `wait_for` may swallow a cancellation; nobody waits for that.
            await asyncio.wait({self._holder}, timeout=HOLDER_SECONDS)
            if self.way.is_own:
                await self.way.link.close()

    def _heard(self, holding: Holding) -> None:
        if holding.state is HoldState.OVER:
            self._end(holding.end_reason)

    def _end(self, reason: EndReason) -> None:
        if self.standing.over is None:
            said = f"task {self.standing.task_id} is over: {reason.name.lower()}"
            self.standing.over = TaskOver(said, reason)
        for stop in self._renewing:
            stop()
        self._renewing.clear()
        self._remove_files()
        self._siblings.discard(self)

    def _remove_files(self) -> None:
        for path in self._files:
            files.remove(path)
        self._files.clear()
