"""What the README says works."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from rig import Daemon

import mayfly
from mayfly import errors, reasons

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example_runs_as_it_stands(broker: Daemon) -> None:
    environ = {"MAYFLY_SERVER": f"https://127.0.0.1:{broker.port}"}
    command = [sys.executable, "-c", BLOCKS[0]]
    done = subprocess.run(
        command, cwd=broker.folder, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines() == ["good for ('read',)", "stolen: None", "after the task: None"], done.stderr


def test_every_example_parses_and_every_name_is_there() -> None:
    for block in BLOCKS:
        ast.parse(block)
    names = set(re.findall(r"mayfly\.([A-Za-z_]+)", "".join(BLOCKS))) - {"reasons"}
    assert len(names) > 8 and not {name for name in names if not hasattr(mayfly, name)}
    for name in re.findall(r"mayfly\.reasons\.(\w+)", README):
        assert hasattr(reasons, name)
    own = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.MayflyError) and not issubclass(kind, errors.Refused)
    }
    assert {name for name in own if f"`{name}`" not in README and f"`mayfly.{name}`" not in README} == set()
    assert set(mayfly.__all__) <= set(dir(mayfly))
