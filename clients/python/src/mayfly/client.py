"""The way to a broker for asyncio programs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType

from . import address as addresses
from .address import Https
from .ambient import fetch
from .errors import ConfigError, Forked
from .hold import Listener
from .identity import CertificateFiles, Identity, IdToken, detect
from .keys import Key
from .link import Carried, Link, OwnKey, Place
from .open_task import PATIENCE_AT_END_SECONDS, PATIENCE_SECONDS, OpenTask, Way, Work
from .task import AsyncTask

DEFAULT_SERVER = "https://127.0.0.1:7443"


class AsyncClient:
    """One broker and who to be there. Opens nothing until it is needed; tasks share its connection.

    Args:
        server: `https://HOST[:PORT]` or `unix:///PATH`; `MAYFLY_SERVER` when left out.
        identity: a `CertificateFiles`, `SocketUser` or `IdToken`; found out when left out (`mayfly.detect`).
        ca: PEM file of the roots that the broker's certificate must come from; `MAYFLY_CA` or the identity folder's
            `ca.pem` when left out. No other root counts, the system's neither.
        server_name: the name that the broker's certificate must carry, when it is not the URL's host
            (`MAYFLY_SERVER_NAME`).
        audience: of identity tokens; `MAYFLY_AUDIENCE` or the server's URL when left out.
        patience: seconds for which a broker that is away is tried.

    It belongs to the event loop and to the process that first used it: after a fork it raises Forked.

    Raises:
        ConfigError: when the server is no address, or there is no identity.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        identity: Identity | None = None,
        ca: str | os.PathLike[str] | None = None,
        server_name: str | None = None,
        audience: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        server = server or os.environ.get("MAYFLY_SERVER") or DEFAULT_SERVER
        self._identity = identity if identity is not None else detect(server)
        self._place = place_of(server, self._identity, ca, server_name)
        self._audience = audience or os.environ.get("MAYFLY_AUDIENCE") or server.rstrip("/")
        self._patience = patience
        self._pid = os.getpid()
        proof = self._identity if isinstance(self._identity, CertificateFiles) else None
        self._link = Link(self._place, proof)
        self._pending: set[asyncio.Future[None]] = set()
        self._open: set[OpenTask] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._place.address)!r}, {type(self._identity).__name__})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Completes the tasks that are still open, waits for that for 5 seconds, and closes the connection."""
        if self._pid != os.getpid():
            return
        for task in list(self._open):
            task.finish()
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=PATIENCE_AT_END_SECONDS)
        await self._link.close()

    def task(
        self,
        tenant: str,
        partner: str,
        purpose: str,
        *,
        deadline_seconds: int = 0,
        patience: float | None = None,
        on_change: Listener | None = None,
        interrupt: bool = False,
    ) -> AsyncTask:
        """A task, opened by `async with` or `await task.open()`.

        Args:
            tenant: 1 to 63 bytes of `[a-z0-9-]`, as are the next two.
            partner: who acts.
            purpose: why, as the grant lists it.
            deadline_seconds: until the task ends by itself, at most 86,400; 0 for the grant's longest.
            patience: seconds for which a broker that is away is tried; the client's when left out.
            on_change: called in the event loop when the hold stands, breaks, or the task is over.
            interrupt: whether the block is cancelled when the task is over; TaskOver is raised from it then.
        """
        self._check()
        return AsyncTask(
            self._way,
            Work(tenant, partner, purpose, deadline_seconds),
            self._open,
            self._pending,
            patience=self._patience if patience is None else patience,
            on_change=on_change,
            interrupt=interrupt,
        )

    @property
    def link(self) -> Link:
        """The connection, for this package's other parts."""
        self._check()
        return self._link

    async def _way(self) -> Way:
        self._check()
        if not isinstance(self._identity, IdToken):
            return Way(self._link, Carried(), is_own=False)
        # Every task has a key of its own, and a token as fresh as the place gives it.
        token = await fetch(self._identity.place, self._audience)
        key = OwnKey(Key().self_signed()) if isinstance(self._place.address, Https) else None
        return Way(Link(self._place, key), Carried(token, has_key=key is not None), is_own=True)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise Forked("this client was made before a fork: make another one in this process")


def place_of(server: str, identity: Identity, ca: str | os.PathLike[str] | None, server_name: str | None) -> Place:
    """Whom to connect to, from arguments and variables.

    Raises:
        ConfigError: when the server is no address, or there are no roots to trust.
    """
    address = addresses.parse(server)
    roots = ca or os.environ.get("MAYFLY_CA")
    if not roots and isinstance(identity, CertificateFiles):
        roots = identity.ca
    if isinstance(address, Https) and not roots:
        raise ConfigError("there are no roots to trust: give `ca`, or set MAYFLY_CA")
    return Place(address, Path(roots) if roots else None, server_name or os.environ.get("MAYFLY_SERVER_NAME"))
