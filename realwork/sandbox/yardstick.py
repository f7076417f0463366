"""What the engine alone can do, to measure a run against."""

import asyncio
import time
import uuid
from collections.abc import Iterator

from realwork.sandbox import labels
from realwork.sandbox.engine import Engine


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


async def _live_and_die(engine: Engine, image: str, waiting: Iterator[int]) -> None:
    client = engine.client
    host_config = client.create_host_config(network_mode="none", init=True)
    for _ in waiting:
        name = f"realwork-yardstick-{uuid.uuid4().hex}"
        await engine.call(
            "creating a container",
            client.create_container,
            image,
            ["sleep", "60"],
            name=name,
            labels=labels.own_labels(60),
            host_config=host_config,
        )
        await engine.call("starting a container", client.start, name)
        await engine.call("removing a container", client.remove_container, name, force=True)
