"""Tasks and credentials, synchronously, against the real daemon."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from conftest import PLACE
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from outside import Authority, replace
from rig import AUDIENCE, Daemon, until

import mayfly
from mayfly import reasons


def test_a_task_is_completed_at_the_end_of_its_block_and_refuses_use_afterwards(
    broker: Daemon, client: mayfly.Client
) -> None:
    with client.task(*PLACE) as task:
        assert task.opened.workload == "worker"
        token = task.token([AUDIENCE], ["read"], kind=mayfly.Kind.OPAQUE, binding=mayfly.Binding.NONE)
        value = token.value()
        assert task.settled().state is mayfly.HoldState.HELD
        assert broker.is_active(value)
    assert broker.task(task.id)["end_reason"] == "completed"
    assert not broker.is_active(value)
    for use in (token.value, token.latest, task.check, lambda: task.token([AUDIENCE])):
        with pytest.raises(mayfly.TaskOver) as over:
            use()
        assert over.value.end_reason is mayfly.EndReason.COMPLETED
    # Completing twice is not an error.
    task.complete()


def test_a_static_secret_is_handed_out_and_the_broker_knows_to_whom(
    broker: Daemon, client: mayfly.Client, tmp_path: Path
) -> None:
    value = tmp_path / "value"
    value.write_bytes(b"sk-vendor\xff\n")
    about = ["--partner", "courier", "--owner", "o@example.com", "--purpose", "tests", "--reason", "tests"]
    broker.operator("secret", "put", "acme/vendor-key", "--file", str(value), *about)
    with client.task(*PLACE) as task:
        secret = task.static_secret("vendor-key", file=tmp_path / "kept")
        assert secret.value().encode("utf-8", "surrogateescape") == b"sk-vendor\xff"
        assert (tmp_path / "kept").read_bytes() == b"sk-vendor\xff"
        assert "sk-vendor" not in repr(secret) + repr(secret.newest)
        (holder,) = broker.operator("secret", "holders", "acme/vendor-key", "--live")
        assert (holder["task_id"], holder["version"], holder["workload"]) == (task.id, 1, "worker")
        with pytest.raises(reasons.SecretNotGranted):
            task.static_secret("another")
    assert not broker.operator("secret", "holders", "acme/vendor-key", "--live")


def test_a_task_is_completed_when_its_block_fails_and_the_failure_goes_on(
    broker: Daemon, client: mayfly.Client
) -> None:
    for failure in (ValueError("x"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(failure)), client.task(*PLACE) as task:
            raise failure
        assert broker.task(task.id)["end_reason"] == "completed"


def test_a_revoked_task_tells_its_holder(broker: Daemon, client: mayfly.Client) -> None:
    heard: list[mayfly.Holding] = []
    told = threading.Event()

    def listen(holding: mayfly.Holding) -> None:
        heard.append(holding)
        if holding.state is mayfly.HoldState.OVER:
            told.set()

    with pytest.raises(mayfly.TaskOver) as over, client.task(*PLACE, on_change=listen) as task:
        token = task.token([AUDIENCE], ["read"])
        task.settled()
        broker.operator("revoke", "task", task.id, "--reason", "test")
        assert told.wait(10)
        with pytest.raises(mayfly.TaskOver):
            token.value()
    assert over.value.end_reason is heard[-1].end_reason is mayfly.EndReason.REVOKED


def test_a_task_that_was_revoked_while_its_hold_was_broken_is_over(
    broker: Daemon, worker: mayfly.CertificateFiles
) -> None:
    with mayfly.Client(broker.door.url, identity=worker) as client:
        task = client.task(*PLACE).open()
        task.settled()
        broker.door.shut()
        try:
            until("a broken hold", lambda: task.holding.state is mayfly.HoldState.BROKEN)
            task.check()
            broker.operator("revoke", "task", task.id, "--reason", "test")
        finally:
            broker.door.open()
        until("the end", lambda: task.is_over)
        assert task.holding.end_reason is mayfly.EndReason.REVOKED
        assert not task.complete()


def test_a_token_is_bound_to_the_certificate_unless_told_otherwise(broker: Daemon, client: mayfly.Client) -> None:
    with client.task(*PLACE) as task:
        token = task.token([AUDIENCE], ["read"]).value()
        assert not broker.is_active(token)
        assert broker.is_active(token, presented=fingerprint(broker))


def test_a_child_task_dies_with_its_parent(broker: Daemon, client: mayfly.Client) -> None:
    with client.task(*PLACE) as task:
        child = task.subtask().open()
        assert broker.task(child.id)["parent_task_id"] == task.id
        token = child.token([AUDIENCE], ["read"])
        assert child.settled().state is mayfly.HoldState.HELD
        task.complete()
        until("the child's end", lambda: child.is_over)
        with pytest.raises(mayfly.TaskOver):
            token.value()
        child.complete()


def test_a_released_lease_is_dead_and_its_task_lives(broker: Daemon, client: mayfly.Client) -> None:
    with client.task(*PLACE) as task:
        token = task.issue(loose())
        assert isinstance(token, mayfly.IssuedToken)
        assert broker.is_active(token.value())
        assert task.release(token) and not task.release(token)
        assert not broker.is_active(token.value())
        task.check()


def test_a_refusal_says_its_reason_and_how_to_mend_it(client: mayfly.Client) -> None:
    with pytest.raises(reasons.PurposeNotGranted) as refused:
        client.task("acme", "courier", "other").open()
    assert isinstance(refused.value, mayfly.errors.Denied) and not refused.value.retryable
    assert refused.value.code == "PERMISSION_DENIED" and "purpose" in refused.value.mend
    with pytest.raises(reasons.InvalidField) as wrong:
        client.task("Acme!", "courier", "report").open()
    assert [violation.field for violation in wrong.value.violations] == ["tenant"]
    with client.task(*PLACE) as task:
        with pytest.raises(reasons.ActionNotGranted):
            task.token([AUDIENCE], ["write"])
        with pytest.raises(TypeError, match="a list of texts"):
            task.token(AUDIENCE, ["read"])


def test_a_broker_of_other_roots_or_another_name_is_refused_at_once(
    broker: Daemon, worker: mayfly.CertificateFiles, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("other").pem)
    url = f"https://127.0.0.1:{broker.port}"
    for wrong in ({"ca": other}, {"server_name": "elsewhere.example"}):
        began = time.monotonic()
        with mayfly.Client(url, identity=worker, patience=20, **wrong) as client, pytest.raises(mayfly.Untrusted) as no:
            client.task(*PLACE).open()
        assert not no.value.retryable and time.monotonic() - began < 10
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with mayfly.Client(url, identity=worker, ca=empty) as client, pytest.raises(mayfly.IdentityError):
        client.task(*PLACE).open()


def test_nobody_without_a_certificate_gets_a_task(broker: Daemon, tmp_path: Path) -> None:
    stranger = Authority("other").workload(tmp_path / "stranger", "worker")
    identity = mayfly.CertificateFiles(stranger / "cert.pem", stranger / "key.pem", broker.ca)
    url = f"https://127.0.0.1:{broker.port}"
    with mayfly.Client(url, identity=identity, patience=0) as client, pytest.raises(mayfly.MayflyError):
        client.task(*PLACE).open()


def test_a_broker_that_is_away_is_tried_until_patience_ends(broker: Daemon, worker: mayfly.CertificateFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with mayfly.Client(f"https://127.0.0.1:{port}", identity=worker, patience=0.5) as client:
        with pytest.raises(mayfly.Unreachable) as away:
            client.task(*PLACE).open()
        assert away.value.retryable and not isinstance(away.value, mayfly.Untrusted)
    assert time.monotonic() - began < 5


def test_a_lost_answer_is_asked_for_again_and_gives_the_same_task(
    broker: Daemon, worker: mayfly.CertificateFiles
) -> None:
    with mayfly.Client(broker.door.url, identity=worker) as client:
        with client.task(*PLACE) as task:
            task.settled()
        before = {task["task_id"] for task in broker.tasks()}

        def fresh() -> set[str]:
            return {task["task_id"] for task in broker.tasks()} - before

        # The request arrives, and its answer does not.
        broker.door.is_mute = True
        opened: list[mayfly.Task] = []
        opening = threading.Thread(target=lambda: opened.append(client.task(*PLACE).open()))
        opening.start()
        until("the task behind the mute door", fresh)
        assert broker.door.swallowed > 0 and not opened
        broker.door.is_mute = False
        broker.door.sever()
        opening.join()
        assert fresh() == {opened[0].id}
        # The same for a credential: of the two leases that were made one lives.
        task = opened[0]
        task.settled()
        issued: list[mayfly.Credential] = []
        broker.door.is_mute = True
        issuing = threading.Thread(target=lambda: issued.append(task.issue(loose())))
        issuing.start()
        leases = lambda: broker.operator("lease", "list", "--task", task.id, "--tenant", "acme")  # noqa: E731
        until("the lease behind the mute door", leases)
        broker.door.is_mute = False
        broker.door.sever()
        issuing.join()
        live = [lease["lease_id"] for lease in leases() if lease["standing"] == "live"]
        assert live == [issued[0].lease.lease_id] and len(leases()) >= 1
        task.complete()


def test_a_renewed_certificate_is_used_as_soon_as_it_is_on_disk(broker: Daemon, tmp_path: Path) -> None:
    folder = broker.platform.workload(tmp_path / "renewed", "worker")
    identity = mayfly.CertificateFiles(folder / "cert.pem", folder / "key.pem", broker.ca)
    with mayfly.Client(f"https://127.0.0.1:{broker.port}", identity=identity) as client:
        with client.task(*PLACE) as first:
            assert bound(first) == fingerprint_of(folder)
            broker.platform.workload(folder, "worker")
            assert bound(first) == fingerprint_of(folder)
        # Files that do not fit, as in the middle of a renewal, change nothing.
        replace(folder / "cert.pem", (broker.shop / "cert.pem").read_bytes())
        with client.task(*PLACE):
            pass
        # Other than at the start.
        with (
            pytest.raises(mayfly.IdentityError, match="not the certificate's"),
            mayfly.Client(f"https://127.0.0.1:{broker.port}", identity=identity) as late,
        ):
            late.task(*PLACE).open()


def test_the_user_of_a_process_is_known_at_the_socket(broker: Daemon) -> None:
    with mayfly.Client(f"unix://{broker.socket}") as client, client.task(*PLACE) as task:
        assert task.opened.workload == "local"
        assert broker.is_active(task.token([AUDIENCE], ["read"]).value())


def test_files_are_private_whole_and_gone_with_the_task(broker: Daemon, client: mayfly.Client, tmp_path: Path) -> None:
    file, folder = tmp_path / "token", tmp_path / "cert"
    with client.task(*PLACE) as task:
        token = task.token([AUDIENCE], ["read"], kind=mayfly.Kind.OPAQUE, ttl_seconds=2, file=file)
        certificate = task.certificate([AUDIENCE], ["read"], folder=folder)
        first = file.read_text()
        assert first == token.newest.value()
        for path in (file, *folder.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name for path in folder.iterdir()} == {"cert.pem", "key.pem", "ca.pem"}
        assert (folder / "cert.pem").read_text() == certificate.newest.chain_pem
        second = until("a successor", lambda: (text := file.read_text()) != first and text)
        # Nobody sees a token before its file has it.
        assert token.latest() in (second, file.read_text())
        until("its end", lambda: not broker.is_active(first))
    assert not file.exists() and not list(folder.iterdir())


def test_a_file_that_cannot_be_written_fails_the_first_credential(client: mayfly.Client, tmp_path: Path) -> None:
    with client.task(*PLACE) as task, pytest.raises(mayfly.HandoverError):
        task.token([AUDIENCE], ["read"], file=tmp_path / "absent" / "token")


def test_a_dropped_task_warns_and_is_completed(broker: Daemon, client: mayfly.Client) -> None:
    task = client.task(*PLACE).open()
    task_id = task.id
    with pytest.warns(ResourceWarning, match="was not completed"):
        del task
        gc.collect()
    until("its end", lambda: broker.task(task_id)["end_reason"] == "completed")


def loose() -> mayfly.Wanted:
    return mayfly.Wanted(mayfly.Kind.OPAQUE, [AUDIENCE], ["read"], binding=mayfly.Binding.NONE)


def fingerprint_of(folder: Path) -> str:
    leaf = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    return hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).hexdigest()


def fingerprint(broker: Daemon) -> str:
    return fingerprint_of(broker.worker)


def bound(task: mayfly.Task) -> str:
    token = task.issue(mayfly.Wanted(mayfly.Kind.JWT, [AUDIENCE], ["read"]))
    assert isinstance(token, mayfly.IssuedToken)
    claims = token.value().split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return base64.urlsafe_b64decode(decoded["cnf"]["x5t#S256"] + "=").hex()
