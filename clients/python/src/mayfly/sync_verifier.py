"""Checks of credentials for programs without asyncio; stands before `verifier` as `sync` does before `task`."""

from __future__ import annotations

import os
from types import TracebackType

from .background import background
from .identity import Identity
from .verifier import Active, AsyncVerifier


class Verifier:
    """Answers whether a credential is good now, for programs without asyncio; arguments as those of `AsyncVerifier`.

    May be used from any thread; needs `with` or `open` for its feed.
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
        self._behind = background()
        self._verifier = AsyncVerifier(
            audience,
            tenant=tenant,
            server=server,
            identity=identity,
            ca=ca,
            server_name=server_name,
            max_age=max_age,
            max_silence=max_silence,
            entries=entries,
            patience=patience,
        )

    def __enter__(self) -> Verifier:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> Verifier:
        """Begins to follow the feed."""
        self._behind.run(self._verifier.__aenter__())
        return self

    def close(self) -> None:
        """Stops following the feed and closes the connection."""
        if self._behind.pid == os.getpid():
            self._behind.run(self._verifier.close())

    def settled(self) -> None:
        """Waits until the feed stands, so that answers may be given again."""
        self._behind.run(self._verifier.settled())

    def token(self, token: str, presented_certificate: bytes | None = None) -> Active | None:
        """Whether a token is good now; see `AsyncVerifier.token`. None when it is not.

        Raises:
            MayflyError: when the broker cannot be asked. Refuse then.
        """
        return self._behind.run(self._verifier.token(token, presented_certificate))

    def certificate(self, leaf_der: bytes) -> Active | None:
        """Whether a client certificate is good now; see `AsyncVerifier.certificate`. None when it is not.

        Raises:
            MayflyError: when the broker cannot be asked. Refuse then.
        """
        return self._behind.run(self._verifier.certificate(leaf_der))
