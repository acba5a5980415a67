"""The same under asyncio, and what only asyncio has."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from conftest import PLACE
from rig import AUDIENCE, Daemon, daemon

import mayfly


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 50))


def client_of(broker: Daemon, url: str | None = None, **more: Any) -> mayfly.AsyncClient:
    identity = mayfly.CertificateFiles.in_folder(broker.worker)
    return mayfly.AsyncClient(url or f"https://127.0.0.1:{broker.port}", identity=identity, **more)


def test_fifty_tasks_at_once_share_a_connection_and_all_complete(broker: Daemon) -> None:
    async def one(client: mayfly.AsyncClient) -> str:
        async with client.task(*PLACE) as task:
            token = await task.token([AUDIENCE], ["read"])
            assert (await task.settled()).state is mayfly.HoldState.HELD
            assert await token.value() == token.latest()
            return task.id

    async def many() -> list[str]:
        async with client_of(broker) as client:
            return await asyncio.gather(*(one(client) for _ in range(50)))

    ids = run(many())
    assert len(set(ids)) == 50
    ended = {task["task_id"]: task["end_reason"] for task in broker.tasks()}
    assert {ended[task_id] for task_id in ids} == {"completed"}


def test_credentials_are_renewed_across_a_restart_of_the_broker() -> None:
    async def across(broker: Daemon) -> None:
        heard: list[mayfly.HoldState] = []
        async with client_of(broker, broker.door.url) as client:
            async with client.task(*PLACE, on_change=lambda holding: heard.append(holding.state)) as task:
                words = {"kind": mayfly.Kind.OPAQUE, "ttl_seconds": 3, "binding": mayfly.Binding.NONE}
                token = await task.token([AUDIENCE], ["read"], **words)
                await task.settled()
                first = await token.value()
                await asyncio.to_thread(broker.kill)
                while heard[-1] is not mayfly.HoldState.BROKEN:
                    await asyncio.sleep(0.02)
                # What lives is good for as long as it lives, with or without the broker.
                assert token.latest() == first
                await asyncio.to_thread(broker.start)
                assert (await task.settled()).state is mayfly.HoldState.HELD
                while await token.value() == first:
                    await asyncio.sleep(0.05)
                assert await asyncio.to_thread(broker.is_active, token.latest())
            assert broker.task(task.id)["end_reason"] == "completed"

    with daemon() as broker:
        run(across(broker))


def test_a_credential_that_ended_while_the_broker_was_away_is_waited_for(broker: Daemon) -> None:
    async def waits() -> None:
        async with client_of(broker, broker.door.url) as client, client.task(*PLACE) as task:
            token = await task.token([AUDIENCE], ["read"], ttl_seconds=1)
            broker.door.shut()
            try:
                with pytest.raises(mayfly.CredentialEnded) as ended:
                    while True:
                        token.latest()
                        await asyncio.sleep(0.02)
                assert ended.value.retryable
                with pytest.raises(mayfly.CredentialEnded):
                    await token.value(patience=0.1)
                waiting = asyncio.ensure_future(token.value(patience=20))
                await asyncio.sleep(0)
            finally:
                broker.door.open()
            assert await waiting == token.newest.value()

    run(waits())


def test_cancellation_completes_the_task_and_goes_on(broker: Daemon) -> None:
    async def cancelled() -> str:
        opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work(client: mayfly.AsyncClient) -> None:
            async with client.task(*PLACE) as task:
                opened.set_result(task.id)
                await asyncio.Event().wait()

        async with client_of(broker) as client:
            working = asyncio.ensure_future(work(client))
            task_id = await opened
            working.cancel()
            # Twice, as an impatient caller does: the completion goes on.
            await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        return task_id

    assert broker.task(run(cancelled()))["end_reason"] == "completed"


def test_a_block_that_wants_it_is_interrupted_when_its_task_is_over(broker: Daemon) -> None:
    async def interrupted() -> None:
        async with client_of(broker) as client:
            with pytest.raises(mayfly.TaskOver) as over:
                async with client.task(*PLACE, interrupt=True) as task:
                    await task.settled()
                    await asyncio.to_thread(broker.operator, "revoke", "task", task.id, "--reason", "test")
                    await asyncio.Event().wait()
            assert over.value.end_reason is mayfly.EndReason.REVOKED
            # Nothing of the interruption is left.
            await asyncio.sleep(0)
            current = asyncio.current_task()
            assert current is not None
            assert sys.version_info < (3, 11) or current.cancelling() == 0

    run(interrupted())


def test_what_is_open_when_its_client_is_closed_is_completed(broker: Daemon) -> None:
    async def closes() -> str:
        client = client_of(broker)
        task = await client.task(*PLACE).open()
        await client.close()
        with pytest.raises(mayfly.TaskOver):
            task.check()
        with pytest.raises(mayfly.ConfigError, match="closed"):
            await client.task(*PLACE).open()
        return task.id

    assert broker.task(run(closes()))["end_reason"] == "completed"


def test_a_client_belongs_to_one_event_loop(broker: Daemon) -> None:
    client = client_of(broker)

    async def once() -> None:
        async with client.task(*PLACE):
            pass

    run(once())
    with pytest.raises(mayfly.ConfigError, match="another event loop"):
        run(once())


def test_a_task_that_is_not_open_refuses_use(broker: Daemon, tmp_path: Path) -> None:
    async def early() -> None:
        async with client_of(broker) as client:
            task = client.task(*PLACE)
            with pytest.raises(mayfly.TaskOver, match="not open"):
                task.check()
            async with task:
                with pytest.raises(mayfly.TaskOver, match="once"):
                    await task.open()

    run(early())
