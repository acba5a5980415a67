"""A way to the broker that can be shut, broken and muted."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable


class Door:
    """A port that stays the same while the broker behind it comes and goes; it can swallow answers."""

    def __init__(self, to: Callable[[], int | None]) -> None:
        self._to = to
        self._is_open = True
        self.is_mute = False
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def shut(self) -> None:
        self._is_open = False
        self.sever()

    def open(self) -> None:
        self._is_open = True

    def sever(self) -> None:
        """Breaks what stands."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sever()
        # An accept under way is woken by this, not by close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return
            port = self._to() if self._is_open else None
            try:
                outside = None if port is None else socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                outside = None
            if outside is None:
                inside.close()
                continue
            outside.settimeout(None)
            with self._lock:
                self._pairs.add((inside, outside))
            threading.Thread(target=self._pump, args=(inside, outside), daemon=True).start()

    def _pump(self, inside: socket.socket, outside: socket.socket) -> None:
        with inside, outside, selectors.DefaultSelector() as both:
            both.register(inside, selectors.EVENT_READ, outside)
            both.register(outside, selectors.EVENT_READ, inside)
            while True:
                for key, _ in both.select():
                    try:
                        content = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                        if not content:
                            return
                        if self.is_mute and key.fileobj is outside:
                            self.swallowed += len(content)
                        else:
                            key.data.sendall(content)
                    except OSError:
                        return
