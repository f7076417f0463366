"""What the engine alone can do, without any guarantee of ours, to measure ourselves against."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

from realwork.errors import SandboxError
from realwork.sandbox import labels
from realwork.sandbox.containers import remove_by_id
from realwork.sandbox.engine import Engine, EngineClient
from realwork.sandbox.uncancelled import uncancelled


async def raw_containers_per_s(engine: Engine, image: str, *, count: int, parallel: int) -> float:
    """Containers that the engine alone creates, starts and removes in a second, `parallel` at a time.

    Raises:
        SandboxError: the engine refused or did not answer.
    """
    waiting = iter(range(count))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(parallel):
            tasks.create_task(_live_and_die(engine, image, waiting))
    return count / (time.monotonic() - began)


@asynccontextmanager
async def raw_container(engine: Engine, image: str) -> AsyncIterator[str]:
    """The id of a running container of the engine's own making, without limits, for the length of the block.

    Raises:
        SandboxError: the engine refused or did not answer.
    """
    client = engine.client
    name = f"realwork-yardstick-{uuid.uuid4().hex}"
    host_config = client.create_host_config(network_mode="none", init=True)
    try:
        created = await engine.call(
            "creating a container",
            client.create_container,
            image,
            ["sleep", "600"],
            name=name,
            labels=labels.own_labels(600),
            host_config=host_config,
        )
        await engine.call("starting a container", client.start, name)
        yield str(created["Id"])
    finally:
        await uncancelled(remove_by_id(engine, name))


async def raw_exec(engine: Engine, container_id: str, command: str) -> None:
    """Run `command` as `docker exec` does: create, start, read to the end, ask for the exit code.

    Raises:
        SandboxError: the engine refused, or the command failed.
    """
    exit_code = await engine.call("running a command", partial(_exec, engine.client, container_id, command))
    if exit_code != 0:
        raise SandboxError(f"{command!r} failed with exit code {exit_code}")


def _exec(client: EngineClient, container_id: str, command: str) -> int:
    exec_id = client.exec_create(container_id, ["/bin/sh", "-c", command])["Id"]
    client.exec_start(exec_id)
    return int(client.exec_inspect(exec_id)["ExitCode"])


async def _live_and_die(engine: Engine, image: str, waiting: Iterator[int]) -> None:
    for _ in waiting:
        async with raw_container(engine, image):
            pass
