"""Tasks and credentials, synchronously, against the real daemon."""

from __future__ import annotations

import threading

import pytest
from conftest import PLACE
from rig import AUDIENCE, Daemon, until

import mayfly


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
