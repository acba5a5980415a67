"""Tokens in the requests of others: `requests`, `httpx` and gRPC. None of them is needed by this package but gRPC.

A bearer token is whoever's it is sent to, so `bearer` sends it over TLS only (plain HTTP to this host itself excepted),
and to the hosts that are named only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import grpc

from .errors import ConfigError
from .secret import SecretText

if TYPE_CHECKING:
    import httpx

    from .renewing import AsyncToken

LOCAL = ("127.0.0.1", "localhost", "::1")
UNAUTHORIZED = 401


class Latest(Protocol):
    """What both kinds of tokens can do."""

    def latest(self) -> SecretText:
        """The text of the newest one, without waiting."""
        ...


class Waits(Latest, Protocol):
    """What a synchronous token can do."""

    def value(self, patience: float = 30.0) -> SecretText:
        """The text of one that lives."""
        ...


class _Request(Protocol):
    @property
    def headers(self) -> Any:
        """To be changed."""
        ...

    @property
    def url(self) -> Any:
        """Where it goes."""
        ...


Request = TypeVar("Request", bound=_Request)


class Bearer:
    """An `auth=` for `requests` and `httpx`, of a synchronous `Token`: each request carries one that lives."""

    def __init__(self, token: Waits, hosts: frozenset[str]) -> None:
        self._token = token
        self._hosts = hosts

    def __repr__(self) -> str:
        return f"Bearer(hosts={sorted(self._hosts)!r})"

    def __call__(self, request: Request) -> Request:
        """Adds the header.

        Raises:
            ConfigError: when the request goes elsewhere, or without TLS.
            TaskOver, CredentialEnded: when there is no token that lives.
        """
        _check(str(request.url), self._hosts)
        request.headers["Authorization"] = "Bearer " + self._token.value()
        return request


def bearer(token: Waits, hosts: Iterable[str]) -> Bearer:
    """An `auth=` for `requests` and for `httpx.Client`; `hosts` names the services that may get the token."""
    return Bearer(token, _named(hosts))


def httpx_bearer(token: AsyncToken, hosts: Iterable[str]) -> httpx.Auth:
    """An `auth=` for `httpx.AsyncClient`; a service that answers 401 is asked once more with a successor."""
    import httpx  # noqa: PLC0415

    names = _named(hosts)

    class AsyncBearer(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> Any:
            _check(str(request.url), names)
            request.headers["Authorization"] = "Bearer " + await token.value()
            answer = yield request
            if answer.status_code == UNAUTHORIZED:
                request.headers["Authorization"] = "Bearer " + await token.replace()
                yield request

    return AsyncBearer()


def call_credentials(token: Latest) -> grpc.CallCredentials:
    """Credentials for gRPC calls over TLS, for `grpc` and `grpc.aio`; combine them with those of the channel.

    A call whose token has ended fails with UNAVAILABLE, since the plug-in never waits.
    """
    return grpc.metadata_call_credentials(_Plugin(token), name="mayfly")


class _Plugin(grpc.AuthMetadataPlugin):
    def __init__(self, token: Latest) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: Callable[[Any, Exception | None], None]) -> None:
        try:
            metadata = (("authorization", SecretText("Bearer " + self._token.latest())),)
        except Exception as error:  # noqa: BLE001  # gRPC wants whatever it is.
            callback((), error)
        else:
            callback(metadata, None)


def _named(hosts: Iterable[str]) -> frozenset[str]:
    if isinstance(hosts, str):
        raise TypeError("hosts is a list of names, not one text")
    names = frozenset(host.lower() for host in hosts)
    if not names:
        raise ConfigError("name the hosts that may get the token")
    return names


def _check(url: str, hosts: frozenset[str]) -> None:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host not in hosts:
        raise ConfigError(f"the token is not for {host!r}")
    if parts.scheme != "https" and host not in LOCAL:
        raise ConfigError("the token is sent over TLS only")
