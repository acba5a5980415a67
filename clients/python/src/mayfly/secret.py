"""Texts that must not be seen."""

from __future__ import annotations

import hmac
from typing import NoReturn


class SecretText(str):
    """A secret on its way into a request: a `str` whose `repr` is redacted.

    Tracebacks with local variables, debuggers and `%r` in logs show `'***'`. `str()`, f-strings, slices and `%s` give
    the text itself, which is an ordinary `str` from then on.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Secret:
    """Keeps a text that is shown by nothing: not `repr`, `str`, `format`, `vars`, `copy` or `pickle`.

    Not promised: that its memory is wiped. Python copies texts as it likes.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = SecretText(text)

    def expose(self) -> SecretText:
        """The text. Every caller is a place to review."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(..)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither copied nor pickled")
