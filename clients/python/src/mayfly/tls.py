"""TLS contexts of Python's `ssl` whose own certificate is always the current one.

How far Python allows it: a context takes a certificate from files only, and uses for new connections what it was given
last. So `RenewingContext` looks, each time it is asked for a connection, whether there is a newer certificate, and
loads it through a file of mode 0600, in memory where there is such a place, that is gone at once.

* A connection that stands keeps the certificate it began with until it is closed: bound the age of pooled connections
  by the credential's life.
* A resumed TLS session is known to the peer by the certificate it began with: servers here give no tickets, and clients
  resume only where the program passes `session=`.
* Roots are added as they come and removed only with the context.
* Asking for a connection never waits: when the credential has ended, it raises CredentialEnded or TaskOver.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .credential import IssuedCertificate

MEMORY = Path("/dev/shm")  # noqa: S108


class RenewingContext(ssl.SSLContext):
    """An `SSLContext` that loads the current certificate before each connection. Made by the functions below."""

    _current: Callable[[], IssuedCertificate]
    _loaded: object
    _turn: threading.RLock

    def refresh(self) -> None:
        """Loads the certificate, if there is a newer one.

        Raises:
            TaskOver, CredentialEnded: when there is none that lives.
        """
        with self._turn:
            certificate = self._current()
            if certificate is self._loaded:
                return
            _load(self, certificate)
            if self._trusts_issuer:
                self.load_verify_locations(cadata=certificate.roots_pem)
            self._loaded = certificate

    _trusts_issuer: bool

    def wrap_socket(self, sock: socket.socket, *positional: Any, **more: Any) -> ssl.SSLSocket:
        """As that of `SSLContext`."""
        handshakes = more.pop("do_handshake_on_connect", positional[1] if len(positional) > 1 else True)
        positional = (*positional[:1], False, *positional[2:]) if len(positional) > 1 else positional
        if len(positional) < 2:  # noqa: PLR2004
            more["do_handshake_on_connect"] = False
        # A context must not be changed while a connection is made from it; the handshake itself needs no turn.
        with self._turn:
            self.refresh()
            wrapped = super().wrap_socket(sock, *positional, **more)
        return _shaken(wrapped) if handshakes else wrapped

    def wrap_bio(self, *positional: Any, **more: Any) -> ssl.SSLObject:
        """As that of `SSLContext`."""
        with self._turn:
            self.refresh()
            return super().wrap_bio(*positional, **more)


def _shaken(wrapped: ssl.SSLSocket) -> ssl.SSLSocket:
    """Does what `wrap_socket` would have done: the handshake now, or when the socket is connected."""
    wrapped.do_handshake_on_connect = True  # type: ignore[attr-defined]
    try:
        wrapped.getpeername()
    except OSError:
        return wrapped
    try:
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def client_context(
    current: Callable[[], IssuedCertificate], roots: str | os.PathLike[str] | None = None
) -> RenewingContext:
    """For clients: shows the certificate, and checks the server's name and certificate.

    Servers must come from `roots`, a PEM file; when left out, from the roots that come with the certificate, which are
    those of the workloads of the same tenant.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, current, trusts_issuer=roots is None)
    if roots is not None:
        context.load_verify_locations(cafile=roots)
    context.refresh()
    return context


def server_context(current: Callable[[], IssuedCertificate], *, require_client: bool = True) -> RenewingContext:
    """For servers: shows the certificate, and asks for one of the same roots, whose names the program must check."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, current, trusts_issuer=True)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_NONE
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.refresh()
    return context


def _context(protocol: int, current: Callable[[], IssuedCertificate], *, trusts_issuer: bool) -> RenewingContext:
    context = RenewingContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context._current, context._loaded, context._turn = current, None, threading.RLock()  # noqa: SLF001
    context._trusts_issuer = trusts_issuer  # noqa: SLF001
    return context


def _load(context: ssl.SSLContext, certificate: IssuedCertificate) -> None:
    """Through a file, since Python's `ssl` takes a key from nowhere else."""
    place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    # Of mode 0600 from its creation.
    with tempfile.NamedTemporaryFile("w", dir=place, prefix="mayfly-", suffix=".pem") as file:
        file.write(certificate.key_pem.expose())
        file.write(certificate.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
