"""Jobs that come with an identity token of a real issuer, fetched over real HTTPS by the real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from outside import BROKER_AUDIENCE
from rig import AUDIENCE, Daemon

import mayfly
from mayfly import reasons

PLACE = ("acme", "courier", "report")


@pytest.fixture
def runner(broker: Daemon, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job of GitHub's: the runner's service gives identity tokens on request."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{broker.issuer.url}/token?api-version=2")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runners-own")
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.folder / "platform.pem"))
    return f"https://127.0.0.1:{broker.port}"


def test_each_task_of_a_job_has_a_token_and_a_key_of_its_own(broker: Daemon, runner: str) -> None:
    with mayfly.Client(runner, ca=broker.ca, audience=BROKER_AUDIENCE) as client:
        for _ in range(2):
            with client.task(*PLACE) as task:
                assert task.opened.workload == "job"
                task.settled()
                # By the task's key alone: the token is spent.
                token = task.token([AUDIENCE], ["read"], kind=mayfly.Kind.OPAQUE, binding=mayfly.Binding.NONE)
                assert broker.is_active(token.value())
                assert token.replace() != token
                with task.subtask() as child:
                    child.settled()
                    child.token([AUDIENCE], ["read"])
            assert broker.task(task.id)["end_reason"] == "completed"


def test_a_job_goes_on_by_its_key_when_the_connection_breaks(broker: Daemon, runner: str) -> None:
    with mayfly.Client(broker.door.url, ca=broker.ca, audience=BROKER_AUDIENCE) as client:
        with client.task(*PLACE) as task:
            task.settled()
            broker.door.sever()
            assert broker.is_active(task.token([AUDIENCE], ["read"], binding=mayfly.Binding.NONE).value())
        # The completion may have come first; a later task is another one all the same.
        assert broker.task(task.id)["end_reason"] == "completed"


def test_a_token_that_was_used_with_another_key_is_refused(broker: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(broker.issuer.token() + "\n")
    url = f"https://127.0.0.1:{broker.port}"
    with mayfly.Client(url, ca=broker.ca, identity=mayfly.IdToken.from_file(file)) as client:
        with client.task(*PLACE), pytest.raises(reasons.IdentityTokenSpent):
            client.task(*PLACE).open()
        file.write_text(broker.issuer.token(exp=1))
        with pytest.raises(reasons.IdentityTokenExpired):
            client.task(*PLACE).open()
        file.write_text("")
        with pytest.raises(mayfly.NoIdentityToken, match="a file"):
            client.task(*PLACE).open()


def test_a_runner_that_gives_no_token_is_named(broker: Daemon, runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with mayfly.Client(runner, ca=broker.ca, audience=BROKER_AUDIENCE) as client:
            with pytest.raises(mayfly.NoIdentityToken) as no:
                client.task(*PLACE).open()
        return str(no.value)

    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hunter2")
    assert "answered 404" in refused() and "hunter2" not in refused()
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://runner.example/?a")
    assert "not https" in refused()
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL")
    with pytest.raises(mayfly.ConfigError, match="id-token: write"):
        mayfly.Client(runner, ca=broker.ca)
