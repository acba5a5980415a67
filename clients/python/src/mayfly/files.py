"""Secrets in files: written in one step, for this user alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Replaces a file by one of mode 0600: a reader sees the old one or the new one, whole.

    Nothing is flushed to disk: the file need not outlive the system.

    Raises:
        OSError: when it cannot be written; what was there stays.
    """
    # mkstemp makes the file with mode 0600, before anything is in it.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".mayfly-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def private_folder(path: Path) -> None:
    """Makes a folder of mode 0700, if there is none; one that is there stays as it is."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)


def remove(path: Path) -> None:
    """Removes a file that may be gone already."""
    with contextlib.suppress(OSError):
        path.unlink()
