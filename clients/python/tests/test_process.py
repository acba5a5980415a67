"""Whole processes: how they end, and what becomes of their tasks then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import PLACE
from rig import Daemon, until

import mayfly

SCRIPT = """
import os, sys, signal, time, mayfly
# What a shell starts in its background is made to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = mayfly.Client(sys.argv[1], identity=mayfly.CertificateFiles.in_folder(sys.argv[2]))
task = client.task("acme", "courier", "report")
"""


@contextlib.contextmanager
def script(broker: Daemon, text: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SCRIPT + text, f"https://127.0.0.1:{broker.port}", str(broker.worker)]
    environ = {**os.environ, **variables}
    child = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_ctrl_c_completes_the_task(broker: Daemon) -> None:
    text = """
with task:
    print(task.id, flush=True)
    # Not one long wait, which a signal just before it would not end.
    while True:
        time.sleep(0.01)
"""
    with script(broker, text) as child:
        assert child.stdout is not None
        task_id = child.stdout.readline().strip()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
        # By the signal, as a program that did not catch it.
        assert child.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors
    assert broker.task(task_id)["end_reason"] == "completed"


def test_the_end_of_the_interpreter_completes_what_is_open(broker: Daemon) -> None:
    with script(broker, "task.open(); print(task.id, flush=True)") as child:
        out, errors = child.communicate(timeout=20)
        assert child.returncode == 0, errors
    assert broker.task(out.strip())["end_reason"] == "completed"


def test_a_killed_process_leaves_its_task_to_the_grace_time(broker: Daemon) -> None:
    with script(broker, "task.open(); task.settled(); print(task.id, flush=True); signal.pause()") as child:
        assert child.stdout is not None
        task_id = child.stdout.readline().strip()
        child.kill()
    until("its end", lambda: broker.task(task_id)["end_reason"] == "abandoned")


def test_a_forked_child_neither_uses_nor_completes_its_parents_task(broker: Daemon) -> None:
    # In a process of its own: forking the tests' process with its threads is what nobody should do.
    text = """
with task:
    child = os.fork()
    if child == 0:
        try:
            task.check()
        except mayfly.Forked:
            try:
                client.task("acme", "courier", "report").open()
            except mayfly.Forked:
                task.__exit__(None, None, None)
                client.close()
                os._exit(7)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    task.check()
    print(task.complete())
"""
    # gRPC's own handlers of a fork abort the child now and then, when another thread is in a call.
    with script(broker, text, GRPC_ENABLE_FORK_SUPPORT="0") as child:
        out, errors = child.communicate(timeout=20)
    assert out.split() == ["7", "True"], errors


def test_no_synchronous_call_waits_for_itself(client: mayfly.Client) -> None:
    with client.task(*PLACE) as task:

        async def within() -> None:
            task.complete()

        with pytest.raises(RuntimeError, match="wait for itself"):
            client._behind.run(within())
    assert os.getpid() == client._behind.pid
