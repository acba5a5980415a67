"""The way to a broker, which outlives restarts of the broker and changes of the identity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc
from grpc import aio

from .address import Address, Https
from .backoff import Backoff
from .errors import Advice, ConfigError, IdentityError, MayflyError, Unreachable
from .identity import read
from .rpc import Calls
from .secret import Secret, SecretText
from .status import error_of

if TYPE_CHECKING:
    from .keys import KeyPair

ATTEMPT_SECONDS = 10.0
"""A call that is not answered by then counts as broken."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
TASK_METADATA = "mayfly-task"

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Method = Callable[[Calls], "aio.UnaryUnaryMultiCallable[Asked, Answer]"]

log = logging.getLogger("mayfly")


class Proof(Protocol):
    """Where the client certificate of a connection comes from."""

    def load(self) -> KeyPair:
        """The certificate and key to show now."""
        ...

    def version(self) -> object:
        """Differs when another one would be loaded now."""
        ...


@dataclass(frozen=True)
class OwnKey:
    """A key that was made for one task."""

    pair: KeyPair

    def load(self) -> KeyPair:
        """Always the same: the task is bound to it."""
        return self.pair

    def version(self) -> object:
        """Never differs."""
        return None


@dataclass(frozen=True)
class Place:
    """Whom to connect to and whom to trust."""

    address: Address
    ca: Path | None
    """The roots that the broker's certificate must come from, PEM; read for each connection."""
    server_name: str | None = None
    """The name that the broker's certificate must carry, when it is not the address's host."""


class Carried:
    """What the calls of one task carry: an identity token first, then the task's id in its place."""

    def __init__(self, token: Secret | None = None, *, has_key: bool = True) -> None:
        self._token = token
        self._task: str | None = None
        self._is_federated = token is not None
        # On a Unix socket there is no key, so the token goes along for as long as it lasts.
        self._has_key = has_key

    def __repr__(self) -> str:
        return f"Carried(token={self._token is not None}, task={self._task!r})"

    def go_on_with(self, task_id: str, *, held: bool) -> None:
        """From now on calls name this task; of a held one, its key is the proof and the token stays behind."""
        if self._is_federated:
            self._task = task_id
            if held and self._has_key:
                self._token = None

    def child(self) -> Carried:
        """For a child task, which is opened in the name of this one."""
        child = Carried(self._token, has_key=self._has_key)
        child._task, child._is_federated = self._task, self._is_federated
        return child

    @property
    def is_by_key(self) -> bool:
        """Whether there is nothing to prove anew with: the key of a held task is all there is."""
        return self._task is not None and self._token is None

    def metadata(self) -> aio.Metadata:
        """For one call."""
        carried = aio.Metadata()
        if self._token is not None:
            carried.add("authorization", SecretText("Bearer " + self._token.expose()))
        if self._task is not None:
            carried.add(TASK_METADATA, self._task)
        return carried


class Connection:
    """One channel, closed when it was replaced and nobody uses it any more."""

    def __init__(self, channel: aio.Channel, version: object) -> None:
        self.calls = Calls(channel)
        self.version = version
        self._channel = channel
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def enter(self) -> None:
        """One more uses it."""
        self._users += 1
        self._unused.clear()

    def leave(self) -> None:
        """One less does."""
        self._users -= 1
        if self._users == 0:
            self._unused.set()

    async def close(self, *, when_unused: bool = False) -> None:
        """At once, or when nobody uses it any more."""
        try:
            if when_unused:
                await self._unused.wait()
        finally:
            await self._channel.close()


class Link:
    """A connection to a broker that is opened when it is needed, and anew when it broke.

    Many tasks share one. It belongs to the event loop that first used it.
    """

    def __init__(self, place: Place, proof: Proof | None) -> None:
        self._place = place
        self._proof = proof
        self._current: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def address(self) -> Address:
        """Where the broker listens."""
        return self._place.address

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The current connection, which stays open for as long as this is entered.

        Raises:
            ConfigError: when roots or identity cannot be used, or another event loop uses this.
        """
        connection = self._newest()
        connection.enter()
        try:
            yield connection
        finally:
            connection.leave()

    def lost(self, connection: Connection) -> None:
        """A connection is of no more use: the next one asked for is a new one."""
        if self._current is connection:
            self._current = None
            self._retire(connection)

    async def close(self) -> None:
        """Closes the connection, and those that were replaced, whoever uses them. No other is opened."""
        self._is_closed = True
        retiring = list(self._retiring)
        for waiting in retiring:
            waiting.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        if self._current is not None:
            connection, self._current = self._current, None
            await connection.close()

    async def call(
        self, patience: float, method: Method[Asked, Answer], request: Asked, carried: Carried | None = None
    ) -> Answer:
        """Makes one call, again and again while that may help and `patience` (seconds) lasts.

        The request should carry an idempotency key, since a lost answer is asked for again.

        Raises:
            MayflyError: what the last attempt came to.
        """
        give_up = time.monotonic() + patience
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        proven_anew = False
        while True:
            try:
                return await self._attempt(method, request, carried)
            except MayflyError as error:
                if error.advice is Advice.AGAIN:
                    pause = max(backoff.pause(), error.retry_after)
                elif error.advice is Advice.PROVE_ANEW and not proven_anew:
                    proven_anew, pause = True, 0.0
                else:
                    raise
                if time.monotonic() + pause >= give_up:
                    raise
            await asyncio.sleep(pause)

    async def _attempt(self, method: Method[Asked, Answer], request: Asked, carried: Carried | None) -> Answer:
        async with self.connection() as connection:
            call = method(connection.calls)
            try:
                return await call(
                    request,
                    timeout=ATTEMPT_SECONDS,
                    metadata=None if carried is None else carried.metadata(),
                )
            except aio.AioRpcError as failure:
                error = error_of(failure)
                # A broker that pushes back is there: a new connection would only be more work for it.
                if is_broken(error):
                    self.lost(connection)
                raise error from failure

    def _newest(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ConfigError("this client belongs to another event loop: make one in each")
        if self._is_closed:
            raise ConfigError("this client is closed")
        current = self._current
        if current is None:
            self._current = self._dial()
            return self._current
        if self._proof is None or self._proof.version() == current.version:
            return current
        try:
            fresh = self._dial()
        except ConfigError as error:
            # The files are being replaced one after the other; what stands goes on.
            log.debug("a renewed identity cannot be used yet: %s", error)
            return current
        self._retire(current)
        self._current = fresh
        return fresh

    def _retire(self, connection: Connection) -> None:
        """Closes a connection when its last user has left."""
        waiting = asyncio.ensure_future(connection.close(when_unused=True))
        self._retiring.add(waiting)
        waiting.add_done_callback(self._retiring.discard)

    def _dial(self) -> Connection:
        address = self._place.address
        # The version is taken first: files that are replaced while they are read are read once more.
        version = None if self._proof is None else self._proof.version()
        if not isinstance(address, Https):
            # gRPC would send the socket's path as the authority, which is none to an HTTP server.
            local = [*OPTIONS, ("grpc.default_authority", "localhost")]
            return Connection(aio.insecure_channel(address.target, local), version)
        if self._place.ca is None:
            raise ConfigError("there are no roots to trust: give `ca`, or set MAYFLY_CA")
        roots = read(self._place.ca)
        if "-----BEGIN CERTIFICATE-----" not in roots:
            raise IdentityError(f"{self._place.ca} holds no certificate")
        pair = None if self._proof is None else self._proof.load()
        credentials = grpc.ssl_channel_credentials(
            roots.encode(),
            None if pair is None else pair.key_pem.expose().encode(),
            None if pair is None else pair.chain_pem.encode(),
        )
        name = self._place.server_name
        options = OPTIONS if name is None else [*OPTIONS, ("grpc.ssl_target_name_override", name)]
        return Connection(aio.secure_channel(address.target, credentials, options), version)


def is_broken(error: MayflyError) -> bool:
    """Whether a new connection may help."""
    return isinstance(error, Unreachable) or error.advice is Advice.PROVE_ANEW


OPTIONS: list[tuple[str, Any]] = [
    # A new channel is a new connection, also where one to the same broker has just failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A broker's name is resolved by the system, and no proxy of the environment sees the connection.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Attempts are counted here, once.
    ("grpc.enable_retries", 0),
]
