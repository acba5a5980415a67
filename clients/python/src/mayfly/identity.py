"""Who to be, and how that is found out.

An identity says how a connection is made: with a certificate from files, as the user of this process at a Unix socket,
or with an identity token and a key of the task's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .ambient import Ambient, Given, InFile, Platform, look
from .errors import ConfigError, IdentityError
from .keys import KeyPair
from .secret import Secret

FILE_MOST_BYTES = 256 * 1024
PRIVATE_MODES = (0o600, 0o400)


@dataclass(frozen=True)
class CertificateFiles:
    """A client certificate in files, read anew for each connection and whenever they were replaced.

    The key file must have mode 0600 or 0400. Limit: 256 KiB a file.
    """

    chain: Path
    """PEM, leaf first."""
    key: Path
    """PEM."""
    ca: Path | None = None
    """Where the broker's roots lie beside them."""

    @classmethod
    def in_folder(cls, folder: str | os.PathLike[str]) -> CertificateFiles:
        """`cert.pem`, `key.pem` and `ca.pem` of a folder."""
        folder = Path(folder)
        return cls(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")

    def load(self) -> KeyPair:
        """Reads both files.

        Raises:
            IdentityError: when one cannot be used, or they do not belong together.
        """
        return KeyPair(read(self.chain), Secret(read(self.key, private=True))).check()

    def version(self) -> object:
        """Differs when one of the files was replaced."""
        return tuple(_look(path) for path in (self.chain, self.key))


@dataclass(frozen=True)
class SocketUser:
    """The user that this process runs as, at the broker's Unix socket."""


@dataclass(frozen=True)
class IdToken:
    """An identity token of the place, fetched for each task, with a key made for that task."""

    place: Ambient

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> IdToken:
        """A token in a file, read for each task."""
        return cls(Ambient(Platform.FILE, InFile(Path(path))))

    @classmethod
    def of(cls, token: str) -> IdToken:
        """A token in hand."""
        return cls(Ambient(Platform.GIVEN, Given(Secret(token.strip()))))


Identity = CertificateFiles | SocketUser | IdToken


def detect(server: str, environ: Mapping[str, str] | None = None) -> Identity:
    """Finds out who to be, in the order of `mayfly exec`: the first of these counts.

    1. `MAYFLY_CERT` and `MAYFLY_KEY`, or the folder `MAYFLY_IDENTITY`.
    2. The user of the process, where `server` is a Unix socket.
    3. What the place gives: `MAYFLY_ID_TOKEN`, GitHub Actions, GitLab, CircleCI, Buildkite, Kubernetes.

    Raises:
        ConfigError: when there is nothing; the message says what was found and what is missing.
    """
    environ = os.environ if environ is None else environ
    chain, key, folder = (environ.get(f"MAYFLY_{name}") for name in ("CERT", "KEY", "IDENTITY"))
    if chain and key:
        return CertificateFiles(Path(chain), Path(key), Path(folder) / "ca.pem" if folder else None)
    if chain or key:
        raise ConfigError("MAYFLY_CERT and MAYFLY_KEY go together")
    if folder:
        return CertificateFiles.in_folder(folder)
    if server.startswith("unix:"):
        return SocketUser()
    found = look(environ)
    for place in found:
        if place.source is not None:
            return IdToken(place)
    said = [f"{place.platform.value}, but {place.missing}" for place in found]
    raise ConfigError(
        f"no identity: found {'; '.join(said) or 'no platform that gives identity tokens'}; "
        "give one, or set MAYFLY_IDENTITY, or MAYFLY_CERT and MAYFLY_KEY"
    )


def read(path: Path, *, private: bool = False) -> str:
    """A file of an identity; a private one only where nobody else could read it.

    Raises:
        IdentityError: when it cannot be used.
    """
    try:
        # Looked at before it is opened: opening a pipe without a writer would block.
        if not stat.S_ISREG(path.stat().st_mode):
            raise IdentityError(f"{path} is not a regular file")
        with path.open("rb") as file:
            # The mode is that of the open file, so that a swap between check and read gains nothing.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode not in PRIVATE_MODES:
                raise IdentityError(f"{path} has mode {mode:04o}; a private key must have mode 0600 or 0400")
            content = file.read(FILE_MOST_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > FILE_MOST_BYTES:
        raise IdentityError(f"{path} is larger than {FILE_MOST_BYTES} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise IdentityError(f"{path} is not PEM") from None


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
