"""The event loop behind the synchronous API: one thread of this process, started when it is first needed."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from .errors import Forked

AT_EXIT_SECONDS = 5.0
"""How long the end of the interpreter waits for tasks to be completed."""

Answer = TypeVar("Answer")

log = logging.getLogger("mayfly")


class Closes(Protocol):
    """What the end of the interpreter closes."""

    async def close(self) -> None:
        """Completes what is open."""


class Background:
    """A thread that runs an event loop, and another that runs callbacks, so that a slow one delays no heartbeat.

    Both are daemons: they do not keep the process alive. At the end of the interpreter, tasks that are still open are
    completed. A child of a fork has neither, and starts its own.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_complain)
        self.at_exit: weakref.WeakSet[Closes] = weakref.WeakSet()
        self._callbacks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mayfly", daemon=True)
        self._thread.start()
        threading.Thread(target=self._call_back, name="mayfly-callbacks", daemon=True).start()
        atexit.register(self._finish)

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Runs a coroutine to its end. When the wait is interrupted, as by Ctrl-C, so is the work.

        Raises:
            Forked: in another process.
            RuntimeError: in the loop's own thread, where waiting would never end.
        """
        if self.pid != os.getpid() or threading.current_thread() is self._thread:
            work.close()
            if self.pid != os.getpid():
                raise Forked("this client was made before a fork: make another one in this process")
            raise RuntimeError("a synchronous call in the client's own event loop would wait for itself")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, callback: Callable[[], None]) -> None:
        """Runs a callback soon, one after the other, outside of the loop."""
        self._callbacks.put(callback)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _call_back(self) -> None:
        while True:
            callback = self._callbacks.get()
            try:
                callback()
            except Exception:
                log.exception("a callback failed")

    def _finish(self) -> None:
        if self.pid != os.getpid():
            return
        give_up = time.monotonic() + AT_EXIT_SECONDS
        waiting = [asyncio.run_coroutine_threadsafe(client.close(), self.loop) for client in list(self.at_exit)]
        for future in waiting:
            with suppress(Exception):
                future.result(max(give_up - time.monotonic(), 0.0))
        # No thread of ours runs while the interpreter is taken down.
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)


_lock = threading.Lock()
_current: Background | None = None


def background() -> Background:
    """The one of this process."""
    global _current  # noqa: PLW0603
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Background()
        return _current


def _forget() -> None:
    """In a child of a fork: the lock may have been held by a thread that is not here."""
    global _lock, _current
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # gRPC wakes every loop of the process for each event, and all but one find nothing (grpc/grpc#25364): harmless.
    if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in str(context.get("handle")):
        return
    loop.default_exception_handler(context)
