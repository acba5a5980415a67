"""The synchronous API: each class stands before one of asyncio's, and runs its work in the background loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from .background import Background, background
from .client import AsyncClient
from .credential import Binding, Credential, IssuedCertificate, IssuedToken, Kind, Wanted
from .hold import Holding, Listener
from .identity import Identity
from .open_task import PATIENCE_AT_END_SECONDS, PATIENCE_SECONDS, Opened
from .renewing import AsyncCertificate, AsyncToken
from .task import AsyncTask

if TYPE_CHECKING:
    from .secret import SecretText
    from .tls import RenewingContext


class Token:
    """A token that renews itself ahead of its end, until its task is over. May be used from any thread."""

    def __init__(self, behind: Background, token: AsyncToken) -> None:
        self._behind = behind
        self._token = token

    def __repr__(self) -> str:
        return repr(self._token).removeprefix("Async")

    @property
    def newest(self) -> IssuedToken:
        """The newest one with its lease; it may have ended when the broker was away for long."""
        return self._token.newest

    def value(self, patience: float = 30.0) -> SecretText:
        """The text of one that lives, for the next request; its `repr` is redacted. Ask again for each request.

        Waits up to `patience` seconds, when the newest has ended because the broker was away.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when there is none by then.
        """
        # Nearly always there is one, and no other thread has to be waited for.
        ready = self._token.ready() if self._behind.pid == os.getpid() else None
        return self._behind.run(self._token.value(patience)) if ready is None else ready

    def latest(self) -> SecretText:
        """The text of the newest one, without waiting.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when it has ended.
        """
        return self._token.latest()

    def replace(self, patience: float = 30.0) -> SecretText:
        """A successor now, when a service did not take the newest one.

        Raises:
            MayflyError: when there is none.
        """
        return self._behind.run(self._token.replace(patience))


class Certificate:
    """A certificate that renews itself ahead of its end, until its task is over. May be used from any thread."""

    def __init__(self, behind: Background, certificate: AsyncCertificate) -> None:
        self._behind = behind
        self._certificate = certificate

    def __repr__(self) -> str:
        return repr(self._certificate).removeprefix("Async")

    @property
    def newest(self) -> IssuedCertificate:
        """The newest one; it may have ended when the broker was away for long."""
        return self._certificate.newest

    def value(self, patience: float = 30.0) -> IssuedCertificate:
        """One that lives. Waits up to `patience` seconds, when the newest has ended because the broker was away.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when there is none by then.
        """
        return self._behind.run(self._certificate.value(patience))

    def latest(self) -> IssuedCertificate:
        """The newest one, without waiting.

        Raises:
            TaskOver: when the task is over.
            CredentialEnded: when it has ended.
        """
        return self._certificate.latest()

    def ssl_context(self, roots: str | os.PathLike[str] | None = None) -> RenewingContext:
        """A context for clients whose certificate is always the current one; see `mayfly.tls`."""
        return self._certificate.ssl_context(roots)


class Task:
    """One task: `with client.task(...) as task`. May be used from any thread.

    Opened on the way in, held in the background, completed on every way out: at the end of the block, by an exception,
    by Ctrl-C, at the end of the interpreter. Should this process die, the hold breaks and the broker ends the task
    after its grace time.

    At the end of a block that ran to its end, TaskOver is raised when the task had ended before by other means:
    what the block did last was done without live credentials. An exception of the block itself goes on as it is.
    """

    def __init__(self, behind: Background, task: AsyncTask, client: AsyncClient) -> None:
        self._behind = behind
        self._task = task
        # Not forgotten before its tasks are.
        self._client = client

    def __repr__(self) -> str:
        return repr(self._task).removeprefix("Async")

    def __enter__(self) -> Task:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # In a child of a fork the task is its parent's to complete.
        if self._behind.pid == os.getpid():
            self._behind.run(self._task.__aexit__(kind, error, trace))

    def open(self) -> Task:
        """Opens the task and begins to hold it. A retry after a lost answer is answered with the same task.

        Raises:
            MayflyError: when the broker refuses or cannot be reached in time.
        """
        self._behind.run(self._task.open())
        return self

    def complete(self, patience: float = PATIENCE_AT_END_SECONDS) -> bool:
        """Ends the task and everything under it; False when it had ended before. Completing twice is not an error.

        Raises:
            MayflyError: when the broker could not be told in `patience` seconds: the task ends by its grace time.
        """
        return self._behind.run(self._task.complete(patience))

    @property
    def opened(self) -> Opened:
        """The task as the broker opened it."""
        return self._task.opened

    @property
    def id(self) -> str:
        """24 hex digits. Not a secret."""
        return self._task.id

    @property
    def holding(self) -> Holding:
        """What is known of the hold now."""
        return self._task.holding

    @property
    def is_over(self) -> bool:
        """Whether the task is known to be over."""
        return self._task.is_over

    def check(self) -> None:
        """Returns while the task is not known to be over.

        Raises:
            TaskOver: when it is; `end_reason` says why.
        """
        self._task.check()

    def settled(self) -> Holding:
        """Waits until the hold stands or the task is over."""
        return self._behind.run(self._task.settled())

    def token(
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
    ) -> Token:
        """A token that renews itself; see `AsyncTask.token`."""
        token = self._task.token(
            audiences,
            actions,
            kind=kind,
            ttl_seconds=ttl_seconds,
            grant=grant,
            binding=binding,
            file=file,
            patience=patience,
        )
        return Token(self._behind, self._behind.run(token))

    def static_secret(
        self,
        name: str,
        *,
        ttl_seconds: int = 0,
        grant: str = "",
        file: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> Token:
        """A static secret; see `AsyncTask.static_secret`."""
        secret = self._task.static_secret(name, ttl_seconds=ttl_seconds, grant=grant, file=file, patience=patience)
        return Token(self._behind, self._behind.run(secret))

    def certificate(
        self,
        audiences: Sequence[str],
        actions: Sequence[str] = (),
        *,
        dns_names: Sequence[str] = (),
        ttl_seconds: int = 0,
        grant: str = "",
        folder: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> Certificate:
        """A certificate that renews itself; see `AsyncTask.certificate`."""
        certificate = self._task.certificate(
            audiences,
            actions,
            dns_names=dns_names,
            ttl_seconds=ttl_seconds,
            grant=grant,
            folder=folder,
            patience=patience,
        )
        return Certificate(self._behind, self._behind.run(certificate))

    def issue(self, wanted: Wanted, patience: float = PATIENCE_SECONDS) -> IssuedToken | IssuedCertificate:
        """One credential that is not renewed."""
        return self._behind.run(self._task.issue(wanted, patience))

    def release(self, credential: Credential, patience: float = PATIENCE_SECONDS) -> bool:
        """Ends one lease before its time; False when it had ended before."""
        return self._behind.run(self._task.release(credential, patience))

    def subtask(
        self,
        purpose: str = "",
        *,
        deadline_seconds: int = 0,
        patience: float = PATIENCE_SECONDS,
        on_change: Listener | None = None,
    ) -> Task:
        """A task that dies with this one, at the latest."""
        heard = _heard(self._behind, on_change)
        child = self._task.subtask(purpose, deadline_seconds=deadline_seconds, patience=patience, on_change=heard)
        return Task(self._behind, child, self._client)


class Client:
    """One broker and who to be there, for programs without asyncio; arguments as those of `AsyncClient`.

    May be used from any thread. Opens nothing until it is needed. After a fork it raises Forked: make another one in
    the child, or start children by `spawn` or `forkserver`, since gRPC itself does not promise to survive a fork. Where
    a program must fork, set GRPC_ENABLE_FORK_SUPPORT=0 before it starts: gRPC's handlers of a fork may abort the child
    (seen in 3 of 100 with grpcio 1.85) when another thread is in a call.
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
        self._client = AsyncClient(
            server, identity=identity, ca=ca, server_name=server_name, audience=audience, patience=patience
        )
        self._behind = background()
        # The interpreter's end completes what is still open then.
        self._behind.at_exit.add(self._client)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Completes the tasks that are still open, waits for that for 5 seconds, and closes the connection."""
        if self._behind.pid == os.getpid():
            self._behind.run(self._client.close())

    def task(
        self,
        tenant: str,
        partner: str,
        purpose: str,
        *,
        deadline_seconds: int = 0,
        patience: float | None = None,
        on_change: Listener | None = None,
    ) -> Task:
        """A task, opened by `with` or `task.open()`; arguments as those of `AsyncClient.task`.

        `on_change` is called in a thread of its own, one call after the other.
        """
        task = self._client.task(
            tenant,
            partner,
            purpose,
            deadline_seconds=deadline_seconds,
            patience=patience,
            on_change=_heard(self._behind, on_change),
        )
        return Task(self._behind, task, self._client)


def _heard(behind: Background, listener: Listener | None) -> Listener | None:
    """Calls a listener outside of the loop."""
    if listener is None:
        return None
    return lambda holding: behind.call(lambda: listener(holding))
