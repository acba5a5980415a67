"""Makes the messages of the contract from the proto files, and the classes of refusals from their page.

Each time the wheel is built, so that they cannot differ from what the daemon says.
"""

import importlib.util
from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("broker", "types", "verifier")
HEADER = '"""Made from the proto files when the package was built."""\n'


def generate(root: Path) -> list[Path]:
    """Writes `src/mayfly/v1`; the proto files lie beside the package in the repository, and within it in an sdist."""
    from grpc_tools import protoc  # noqa: PLC0415  # only where the package is built

    found = [path for path in (root / "../../proto", root / "proto") if (path / "mayfly/v1/broker.proto").is_file()]
    if not found:
        raise SystemExit("the proto files are not there: build from the repository or from an sdist")
    target = root / "src"
    (target / "mayfly/v1").mkdir(exist_ok=True)
    (target / "mayfly/v1/__init__.py").write_text(HEADER)
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{found[0]}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}"]
    if protoc.main([*arguments, *(f"mayfly/v1/{name}.proto" for name in FILES)]) != 0:
        raise SystemExit("the proto files do not compile")
    return sorted((target / "mayfly/v1").glob("*.py*"))


def reasons(root: Path) -> Path:
    """Runs `tools/reasons.py`."""
    spec = importlib.util.spec_from_file_location("reasons", root / "tools/reasons.py")
    if spec is None or spec.loader is None:
        raise SystemExit("tools/reasons.py is not there")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written: Path = tool.write()
    return written


class Contract(BuildHookInterface[Any]):
    """Runs before the files of a wheel are collected, for an editable install too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes them and adds them to the wheel, though git does not know them."""
        root = Path(self.root)
        build_data["artifacts"] += [f"/{path.relative_to(root)}" for path in [*generate(root), reasons(root)]]
