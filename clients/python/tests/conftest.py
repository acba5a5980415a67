from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig import Daemon, daemon

import mayfly

PLACE = ("acme", "courier", "report")


@pytest.fixture(scope="session")
def broker() -> Iterator[Daemon]:
    """One for all tests that do not restart it."""
    with daemon() as running:
        yield running


@pytest.fixture(autouse=True)
def _a_place_without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CI runs there may be some."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SERVER", "CA", "CERT", "KEY", "IDENTITY", "SERVER_NAME", "AUDIENCE", "ID_TOKEN"):
        monkeypatch.delenv(f"MAYFLY_{name}", raising=False)


@pytest.fixture
def worker(broker: Daemon) -> mayfly.CertificateFiles:
    return mayfly.CertificateFiles.in_folder(broker.worker)


@pytest.fixture
def client(broker: Daemon, worker: mayfly.CertificateFiles) -> Iterator[mayfly.Client]:
    with mayfly.Client(f"https://127.0.0.1:{broker.port}", identity=worker) as client:
        yield client
