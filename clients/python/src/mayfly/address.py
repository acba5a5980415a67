"""Where a broker listens."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import ConfigError

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Https:
    """A TLS port; `host` is a DNS name or an IP address without brackets."""

    host: str
    port: int

    @property
    def target(self) -> str:
        """As gRPC wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.target}"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket on the same host; the peer is known by its user id, there is no TLS."""

    path: str

    @property
    def target(self) -> str:
        """As gRPC wants it."""
        return f"unix://{self.path}"

    def __str__(self) -> str:
        return self.target


Address = Https | UnixSocket


def parse(text: str) -> Address:
    """Reads `https://HOST[:PORT]` or `unix:///PATH`.

    Raises:
        ConfigError: when it is neither, or has more than host and port.
    """
    path = text.removeprefix("unix://")
    if path != text:
        if not path.startswith("/") or len(path) < 2:  # noqa: PLR2004
            raise ConfigError(f"server {text!r} needs an absolute socket path, as in `unix:///run/mayfly.sock`")
        return UnixSocket(path)
    if not text.startswith("https://"):
        raise ConfigError(f"server {text!r} does not start with `https://` or `unix:///`")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"server {text!r}: {error}") from None
    if not host or "@" in parts.netloc:
        raise ConfigError(f"server {text!r} names no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"server {text!r} has a path or query after the port")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ConfigError(f"server {text!r} names no host") from None
    return Https(host, HTTPS_PORT if port is None else port)
