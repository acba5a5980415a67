"""A real daemon in a folder, with all that it needs around it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

from door import Door
from outside import BROKER_AUDIENCE, Authority, Issuer

AUDIENCE = "https://shop.example"
START_SECONDS = 30
STEP_SECONDS = 20
QUIET: dict[str, Any] = {"capture_output": True, "text": True, "env": {}, "timeout": STEP_SECONDS}
Found = TypeVar("Found")


def daemon_binary() -> Path:
    """MAYFLY_DAEMON, else what cargo built."""
    root = Path(__file__).resolve().parents[3]
    named = os.environ.get("MAYFLY_DAEMON")
    known = [Path(named)] if named else [root / "target" / kind / "mayfly" for kind in ("release", "debug")]
    found = [path for path in known if path.is_file()]
    assert found, f"there is no daemon at {known[0]}: set MAYFLY_DAEMON"
    return found[0]


def until(what: str, ask: Callable[[], Found | None], seconds: float = STEP_SECONDS) -> Found:
    """Asks until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"no {what} within {seconds} s")


class Daemon:
    """A broker in a folder, with an operator, workloads and a resource server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.binary = daemon_binary()
        self.platform = Authority()
        (folder / "platform.pem").write_bytes(self.platform.pem)
        self.issuer = Issuer(folder, self.platform)
        self.worker = self.platform.workload(folder / "worker", "worker")
        self.shop = self.platform.workload(folder / "shop", "shop")
        self.socket = folder / "m.sock"
        self.log = folder / "daemon.log"
        self.child: subprocess.Popen[str] | None = None
        self.port: int | None = None
        self.door = Door(lambda: self.port)
        self._ask("init", "--data", str(self.data))
        self.ca = self.data / "operator" / "ca.pem"
        for identity in (self.worker, self.shop):
            (identity / "ca.pem").write_bytes(self.ca.read_bytes())
        self._config()

    def __enter__(self) -> Daemon:
        try:
            self.start()
            self._apply()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        command = [str(self.binary), "serve", "--config", str(self.folder / "mayfly.toml")]
        with self.log.open("ab") as errors:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env={}
            )
        ready: list[int] = []
        seen = threading.Event()
        output = self.child.stdout
        assert output is not None

        def read() -> None:
            # To the end, so that the daemon never meets a full pipe.
            with output:
                for line in output:
                    if line.startswith("ready https://"):
                        ready.append(int(line.strip().rstrip("/").rpartition(":")[2]))
                        seen.set()
            seen.set()

        threading.Thread(target=read, daemon=True).start()
        assert seen.wait(START_SECONDS) and ready, self.log.read_text(errors="replace")[-2000:]
        self.port = ready[0]

    def kill(self) -> None:
        """As a crash would."""
        self.port = None
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def close(self) -> None:
        self.kill()
        self.door.close()
        self.issuer.close()

    def operator(self, *words: str) -> list[dict[str, Any]]:
        """What the command line answers to the first operator."""
        place = ["--server", f"https://127.0.0.1:{self.port}", "--identity", str(self.data / "operator")]
        said = self._ask("--output", "json", *place, *words)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def task(self, task_id: str) -> dict[str, Any]:
        return next(task for task in self.tasks() if task["task_id"] == task_id)

    def tasks(self) -> list[dict[str, Any]]:
        return self.operator("task", "list", "--tenant", "acme")

    def is_active(self, token: str, *, presented: str | None = None) -> bool:
        """What the resource server is told of a token."""
        place = ["--server", f"https://127.0.0.1:{self.port}", "--identity", str(self.shop)]
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as file:
            file.write(token)
            file.flush()
            words = ["introspect", file.name, "--audience", AUDIENCE]
            words += ["--presented", presented] if presented else []
            done = subprocess.run([self.binary, *place, *words], check=False, **QUIET)
        assert done.returncode in (0, 4), done.stderr
        return done.returncode == 0

    def _ask(self, *words: str) -> str:
        done = subprocess.run([self.binary, *words], check=False, **QUIET)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def _config(self) -> None:
        (self.folder / "mayfly.toml").write_text(f"""
            data_dir = "{self.data}"
            public_url = "https://localhost:7443"
            seal.key_file = "{self.data}.seal.key"
            metrics.address = "127.0.0.1:0"
            limits.rate_per_caller_per_second = 1000
            limits.rate_burst = 1000
            limits.heartbeat_seconds = 1
            limits.hold_grace_seconds = 3
            [[listener]]
            address = "127.0.0.1:0"
            [[listener]]
            unix = "{self.socket}"
            services = ["broker"]
            [[client_ca]]
            name = "platform"
            file = "{self.folder / "platform.pem"}"
            [[issuer]]
            name = "github"
            kind = "github"
            url = "{self.issuer.url}"
            audience = "{BROKER_AUDIENCE}"
            ca_file = "{self.folder / "platform.pem"}"
            allow_private = true
        """)

    def _apply(self) -> None:
        trust = self.folder / "trust"
        trust.mkdir()
        (trust / "acme.toml").write_text(trust_map())
        self.operator("apply", "-f", str(trust), "--reason", "tests")


def trust_map() -> str:
    def day(days: int) -> str:
        return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z")

    platform = 'authority = "platform"'
    return f"""
        [[operator]]
        name = "admin"
        role = "admin"
        tenants = "all"
        partners = "all"
        [[partner]]
        name = "courier"
        display_name = "Courier"
        contact = "courier@example.com"
        [[tenant]]
        name = "acme"
        [[verifier]]
        tenant = "acme"
        name = "shop"
        selectors = [{{ spiffe_id = "spiffe://platform.example/shop", {platform} }}]
        audiences = ["{AUDIENCE}"]
        [[workload]]
        tenant = "acme"
        name = "worker"
        environment = "prod"
        selectors = [{{ spiffe_id = "spiffe://platform.example/worker", {platform} }}]
        [[workload]]
        tenant = "acme"
        name = "local"
        environment = "prod"
        selectors = [{{ unix_uid = {os.getuid()} }}]
        [[workload]]
        tenant = "acme"
        name = "job"
        environment = "prod"
        [[workload.selectors]]
        issuer = "github"
        claims = {{ repository_id = "74", ref = "refs/heads/main" }}
        [[grant]]
        tenant = "acme"
        name = "courier-report"
        partner = "courier"
        workloads = ["worker", "local", "job"]
        purposes = ["report"]
        audiences = ["{AUDIENCE}"]
        actions = ["read"]
        kinds = ["jwt", "opaque", "x509", "secret"]
        secrets = ["vendor-key"]
        dns_names = ["localhost"]
        ttl_default = 300
        ttl_max = 600
        task_max = 3600
        owner = "owner@example.com"
        expires = "{day(180)}"
        revokers = ["admin"]
        attest_by = "{day(90)}"
        environment = "prod"
        max_live_leases = 1000
        require_binding = false
    """


@contextlib.contextmanager
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="mayfly-py-") as folder, Daemon(Path(folder)) as running:
        yield running
