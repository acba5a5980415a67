"""Keeps a task: one stream after the other, for as long as the task lives."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpc import aio

from .backoff import Backoff
from .errors import Advice, EndReason, MayflyError, TaskOver, Unreachable
from .reasons import NotFound
from .status import error_of
from .v1 import broker_pb2

if TYPE_CHECKING:
    from .link import Carried, Link

ANSWER_SECONDS = 10.0
"""How long a broker may take for a first answer."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
UNKNOWN_PAUSE_SECONDS = 1.0
"""The longest pause while the grace time is not known."""

log = logging.getLogger("mayfly")


class HoldState(enum.Enum):
    """What is known of a task that is held."""

    STARTING = "starting"
    """No stream has been answered yet."""
    HELD = "held"
    """The stream stands."""
    BROKEN = "broken"
    """The stream broke and is being resumed."""
    OVER = "over"
    """The task is over; nothing under it can be used any more."""


@dataclass(frozen=True)
class Holding:
    """A state, and why."""

    state: HoldState
    why: str = ""
    """For people: the last failure of a hold that broke."""
    end_reason: EndReason = EndReason.UNSPECIFIED
    """Why the task ended, as far as that is known."""


Listener = Callable[[Holding], None]


class Hold:
    """Holds one task until it is over, and tells who listens of each change."""

    def __init__(self, link: Link, carried: Carried, task_id: str) -> None:
        self.now = Holding(HoldState.STARTING)
        self.listeners: list[Listener] = []
        self._link = link
        self._carried = carried
        self._task_id = task_id
        self._settled = asyncio.Event()

    async def settled(self) -> Holding:
        """Waits until the hold stands or the task is over."""
        await self._settled.wait()
        return self.now

    def over(self, end_reason: EndReason) -> None:
        """The task is over, whoever found out."""
        self._say(Holding(HoldState.OVER, end_reason=end_reason))

    async def run(self) -> None:
        """Returns when the task is over."""
        backoff = Backoff(FIRST_PAUSE_SECONDS, UNKNOWN_PAUSE_SECONDS)
        while True:
            try:
                self.over(await self._one_stream(backoff))
                return
            except MayflyError as error:
                log.debug("the hold of task %s broke; resuming it: %s", self._task_id, error)
                # A stream that stood is asked for once more, over a new connection; what is refused there is.
                stood = self.now.state is HoldState.HELD
                if error.advice is Advice.PROVE_ANEW and not stood and self._carried.is_by_key:
                    self.over(EndReason.UNSPECIFIED)
                    return
                self._say(Holding(HoldState.BROKEN, why=str(error)))
                least = error.retry_after
            await asyncio.sleep(max(backoff.pause(), least))

    async def _one_stream(self, backoff: Backoff) -> EndReason:
        async with self._link.connection() as connection:
            call = connection.calls.hold_task(metadata=self._carried.metadata())
            try:
                return await self._over(call, backoff)
            except aio.AioRpcError as failure:
                error = error_of(failure)
                ended = _ended(error)
                if ended is not None:
                    return ended
                self._link.lost(connection)
                raise error from failure
            except Unreachable:
                self._link.lost(connection)
                raise
            finally:
                call.cancel()

    async def _over(
        self, call: aio.StreamStreamCall[broker_pb2.HoldTaskRequest, broker_pb2.HoldTaskResponse], backoff: Backoff
    ) -> EndReason:
        """Holds over one stream; returns why the task ended."""
        first = asyncio.ensure_future(call.write(broker_pb2.HoldTaskRequest(task_id=self._task_id)))
        reading = asyncio.ensure_future(_answer(call))
        next_beat = silent_at = time.monotonic() + ANSWER_SECONDS
        try:
            while True:
                wait = max(min(next_beat, silent_at) - time.monotonic(), 0.0)
                done, _ = await asyncio.wait({reading}, timeout=wait)
                now = time.monotonic()
                if not done:
                    if now >= silent_at:
                        raise Unreachable("the broker does not answer the hold")
                    if now >= next_beat:
                        next_beat = now + ANSWER_SECONDS
                        await asyncio.wait_for(call.write(broker_pb2.HoldTaskRequest()), ANSWER_SECONDS)
                    continue
                answer = reading.result()
                if answer.end_reason:
                    return EndReason.of(answer.end_reason)
                reading = asyncio.ensure_future(_answer(call))
                backoff.succeeded()
                # So often that a few attempts may fail, and no more often: others come back as well.
                backoff.limit(min(max(answer.grace_seconds / 4, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
                self._carried.go_on_with(self._task_id, held=True)
                self._say(Holding(HoldState.HELD))
                # Thrice within the time asked for, so that one lost beat is forgiven.
                every = max(answer.heartbeat_seconds, 1)
                next_beat = now + every / 3
                silent_at = now + every * 2 + every / 3
        except (asyncio.TimeoutError, asyncio.InvalidStateError):
            # A write to a stream that is over; its status says why, when there is one.
            raise Unreachable("the hold's stream is over") from None
        finally:
            for waiting in (first, reading):
                waiting.cancel()
                # A result that nobody looks at any more would be complained of.
                waiting.add_done_callback(_forget)

    def _say(self, holding: Holding) -> None:
        if self.now.state is HoldState.OVER or self.now == holding:
            return
        self.now = holding
        if holding.state in (HoldState.HELD, HoldState.OVER):
            self._settled.set()
        else:
            self._settled.clear()
        for listener in list(self.listeners):
            try:
                listener(holding)
            except Exception:
                log.exception("a listener of task %s failed", self._task_id)


async def _answer(
    call: aio.StreamStreamCall[broker_pb2.HoldTaskRequest, broker_pb2.HoldTaskResponse],
) -> broker_pb2.HoldTaskResponse:
    """The next message. A stream that ends without a last word broke."""
    answer = await call.read()
    if isinstance(answer, broker_pb2.HoldTaskResponse):
        return answer
    raise Unreachable("the broker closed the hold's stream")


def _ended(error: MayflyError) -> EndReason | None:
    """A task that is not there any more, or not ours any more, is over; all else may be mended."""
    if isinstance(error, TaskOver):
        return error.end_reason
    return EndReason.UNSPECIFIED if isinstance(error, NotFound) else None


def _forget(waiting: asyncio.Future[Any]) -> None:
    with suppress(asyncio.CancelledError):
        waiting.exception()
