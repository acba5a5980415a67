"""Writes `src/mayfly/reasons.py` from the repository's docs/errors.md, each time the wheel is built.

So who adds a reason has nothing to do here. By hand: `python3 tools/reasons.py`.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
TARGET = HERE / "src/mayfly/reasons.py"
FAMILIES = {
    "INVALID_ARGUMENT": "BadRequest",
    "UNAUTHENTICATED": "NotProven",
    "PERMISSION_DENIED": "Denied",
    "FAILED_PRECONDITION": "NotInThisState",
    "RESOURCE_EXHAUSTED": "Exhausted",
    "UNAVAILABLE": "AwayForNow",
}
# As src/client/workload/advice.rs has it; all others are STOP.
ADVICE = {
    "UNAVAILABLE": "AGAIN",
    "IDENTITY_ISSUER_UNAVAILABLE": "AGAIN",
    "ISSUING_HELD": "AGAIN",
    "TOO_MANY_REQUESTS": "AGAIN",
    "TASK_ENDED": "OVER",
    "LEASE_ENDED": "OVER",
    "UNPROVEN": "PROVE_ANEW",
    "IDENTITY_TOKEN_EXPIRED": "PROVE_ANEW",
}
WIDTH = 120
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (.+?) \| (.+?) \|$", re.MULTILINE)
HEADER = '''"""One class for each reason of a refusal. Made from docs/errors.md when the package was built."""

from __future__ import annotations

from .errors import (
    Advice,
{families})


'''


def errors_page() -> Path:
    """Beside the repository's code, or in an sdist."""
    found = [path for path in (HERE / "../../docs/errors.md", HERE / "docs/errors.md") if path.is_file()]
    if not found:
        raise SystemExit("docs/errors.md is not there")
    return found[0]


def rows(page: str) -> list[tuple[str, str, str, str]]:
    """Reason, code, meaning and mend of each row, links and code marks of Markdown taken out of the last two."""
    plain = [
        (reason, code, *(re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", text) for text in (meaning, mend)))
        for reason, code, meaning, mend in ROW.findall(page)
    ]
    return [(reason, code, meaning, mend) for reason, code, meaning, mend in plain]


def name(reason: str) -> str:
    """GRANT_EXPIRED is GrantExpired."""
    return "".join(word.capitalize() for word in reason.split("_"))


def docstring(text: str) -> str:
    """In one line where it fits."""
    quotes = '"' * 3
    if len(text) <= WIDTH - 10:
        return f"    {quotes}{text}{quotes}\n\n"
    first, _, rest = text.partition(". ")
    if not rest:
        first, _, rest = text.partition(": ")
        first, rest = f"{first}", rest[:1].upper() + rest[1:]
    lines = textwrap.wrap(rest, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([f"    {quotes}{first}.", "", *lines, f"    {quotes}\n\n"])


def render(page: str) -> str:
    """The whole module."""
    table = sorted(rows(page))
    families = sorted({FAMILIES.get(code, "Refused") for _, code, _, _ in table} | {"Refused", "TaskOver"})
    out = [HEADER.format(families="".join(f"    {family},\n" for family in families))]
    for reason, code, meaning, mend in table:
        bases = FAMILIES.get(code, "Refused") + (", TaskOver" if reason == "TASK_ENDED" else "")
        advice = ADVICE.get(reason, "STOP")
        out.append(f"class {name(reason)}({bases}):\n")
        out.append(docstring(meaning))
        if advice != "STOP":
            out.append(f"    advice = Advice.{advice}\n")
        out.append(f"    mend = {json.dumps(mend, ensure_ascii=False)}\n")
        out.append("\n\n")
    out.append("REASONS: dict[str, type[Refused]] = {\n")
    out += [f'    "{reason}": {name(reason)},\n' for reason, *_ in table]
    out.append('}\n"""By the reason\'s code."""\n')
    return "".join(out)


def write() -> Path:
    """Writes the module, where it would change, and says where it is."""
    text = render(errors_page().read_text(encoding="utf-8"))
    if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        TARGET.write_text(text, encoding="utf-8")
    return TARGET


if __name__ == "__main__":
    print(write())
