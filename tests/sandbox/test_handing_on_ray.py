"""Prepared images handed from node to node of a real Ray cluster, each node with an engine of its own."""

import asyncio
import logging
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import realwork.distributed  # noqa: F401 - sets Ray's switches before it is imported
from realwork.config import RunConfig
from realwork.distributed.images import Pieces, fetch_from
from realwork.distributed.rollout_actor import RolloutActor
from realwork.errors import NodeError, SandboxError
from realwork.record import RolloutSettings
from realwork.sandbox.engine import open_engine
from realwork.types import RolloutSpec

from .engines import MIB, images, inspected, layers_on, prepare_on, remove_all

UNKNOWN_NODE = "e" * 56


@pytest.fixture(scope="module")
def cluster(sender, receiver):
    """Two nodes, this process on the one with the receiving engine."""
    import ray
    from ray.cluster_utils import Cluster

    quiet = {"RAY_memory_monitor_refresh_ms": "0"}
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=2, include_dashboard=False, env_vars=quiet | {"DOCKER_HOST": receiver.url})
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def source(cluster, sender):
    """The node with the sending engine."""
    return add_source(cluster, sender)


def add_source(cluster, sender):
    environment = {"RAY_memory_monitor_refresh_ms": "0", "DOCKER_HOST": sender.url}
    return cluster.add_node(num_cpus=1, env_vars=environment)


def fetched(target, node_id, recipe, known):
    """Whether the image of the recipe was brought from that node."""

    async def main():
        async with open_engine(target.url) as engine:
            return await fetch_from(node_id)(engine, recipe.image, known)

    return asyncio.run(main())


def senders(sender):
    """The processes that send something of that engine."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_sending = b"_saved" in (process / "cmdline").read_bytes()
            if is_sending and sender.url.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


async def until(reached, seconds=30):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@asynccontextmanager
async def stuck_transfer(sender, target, source, recipe, *, frozen):
    """A transfer that has begun and cannot go on, since the engine `frozen` does not."""
    async with open_engine(target.url) as engine:
        frozen.freeze()
        try:
            fetching = asyncio.create_task(fetch_from(source.node_id)(engine, recipe.image, frozenset()))
            await until(lambda: senders(sender))
            await asyncio.sleep(2.0)
            assert not fetching.done()
            yield fetching
        finally:
            frozen.thaw()


def test_an_image_comes_from_another_node_with_and_without_what_is_there(sender, target, source, recipe, busybox):
    prepare_on(sender, recipe, content=os.urandom(40 * MIB))
    base = layers_on(target, busybox)
    assert fetched(target, source.node_id, recipe, base)
    assert inspected(target, recipe.image)["Id"] == inspected(sender, recipe.image)["Id"]
    with target.client() as client:
        remove_all(client)
    assert fetched(target, source.node_id, recipe, base), "the whole image comes when what was left out is missing"
    assert inspected(target, recipe.image)["Id"] == inspected(sender, recipe.image)["Id"]


def test_a_node_that_is_none_or_has_no_such_image_is_no_source(target, source, recipe, caplog):
    assert not fetched(target, source.node_id, recipe, frozenset())
    assert not fetched(target, UNKNOWN_NODE, recipe, frozenset())
    first, second = (record.getMessage() for record in caplog.records)
    assert f"does not have the image {recipe.image}" in first
    assert UNKNOWN_NODE in second


@pytest.mark.parametrize("dies", ["task", "node"])
def test_a_source_that_dies_is_none_and_leaves_nothing(cluster, sender, target, source, recipe, dies):
    prepare_on(sender, recipe, content=os.urandom(100 * MIB))
    before = images(target)
    node = source if dies == "task" else add_source(cluster, sender)

    async def main():
        async with stuck_transfer(sender, target, node, recipe, frozen=target) as fetching:
            if dies == "node":
                cluster.remove_node(node, allow_graceful=False)
            for pid in senders(sender):
                os.kill(pid, signal.SIGKILL)
            target.thaw()
            return await asyncio.wait_for(fetching, 60)

    assert not asyncio.run(main())
    assert images(target) == before


@pytest.mark.parametrize("stuck", ["sender", "receiver"])
def test_a_receiver_that_is_cancelled_ends_the_sender_and_waits_for_nothing(sender, target, source, recipe, stuck):
    prepare_on(sender, recipe, content=os.urandom(100 * MIB))
    before = images(target)

    async def main():
        frozen = sender if stuck == "sender" else target
        async with stuck_transfer(sender, target, source, recipe, frozen=frozen) as fetching:
            began = time.monotonic()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            took_s = time.monotonic() - began
            await until(lambda: not senders(sender))
            return took_s

    assert asyncio.run(main()) < 1.0
    assert images(target) == before


def test_the_event_loop_goes_on_while_an_image_comes(sender, target, source, recipe):
    prepare_on(sender, recipe, content=os.urandom(100 * MIB))

    async def main():
        pauses = []
        async with open_engine(target.url) as engine:
            fetching = asyncio.create_task(fetch_from(source.node_id)(engine, recipe.image, frozenset()))
            while not fetching.done():
                began = time.monotonic()
                await asyncio.sleep(0.01)
                pauses.append(time.monotonic() - began)
            return await fetching, max(pauses)

    is_fetched, longest_s = asyncio.run(main())
    assert is_fetched
    assert longest_s < 1.0


async def silent_after(*pieces):
    for piece in pieces:
        done = asyncio.get_running_loop().create_future()
        done.set_result(piece)
        yield done
    await asyncio.sleep(60)


def test_a_source_that_falls_silent_is_waited_for_no_longer_than_it_may_be():
    async def main():
        pieces = Pieces(silent_after(b"a"), first_piece_s=10.0, piece_s=0.2)
        first = await asyncio.to_thread(next, pieces)
        with pytest.raises(NodeError, match=r"nothing came for 0\.2 s"):
            await asyncio.to_thread(next, pieces)
        with pytest.raises(NodeError, match=r"nothing came for 0\.1 s"):
            await asyncio.to_thread(next, Pieces(silent_after(), first_piece_s=0.1))
        return first

    assert asyncio.run(main()) == b"a"


def test_a_thread_that_waits_for_a_piece_is_let_go_when_nobody_wants_the_image_any_more():
    async def main():
        pieces = Pieces(silent_after())
        waiting = asyncio.create_task(asyncio.to_thread(next, pieces))
        await asyncio.sleep(0.2)
        pieces.close()
        for asked in (waiting, asyncio.to_thread(next, pieces)):
            with pytest.raises(SandboxError, match="Nobody waits"):
                await asyncio.wait_for(asked, 5)

    asyncio.run(main())


def test_an_actor_fetches_what_an_actor_of_another_node_has_prepared(sender, target, source, busybox):
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    environment = {"docker_image": busybox, "init_commands": ["cat /proc/sys/kernel/random/uuid >made"]}
    config = {
        "environments": [{"id": "e", "prompt": "p", "unit_tests": ["t"], "init_network": "none"} | environment],
        "rollout_config": {},
        "template_prompt": "s",
        "sandbox_config": {"memory_mib": 256},
    }
    settings = RolloutSettings(config=RunConfig.model_validate(config), script=())
    spec = RolloutSpec(run_id="r", environment_id="e", sample_index=0)

    async def prepare(node_id, source_id):
        where = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor = ray.remote(RolloutActor).options(num_cpus=0, scheduling_strategy=where).remote()
        try:
            await actor.setup.remote("r", settings, None, None, [])
            await asyncio.wait_for(actor.prepare.remote(spec, 1.0, source_id), 100)
        finally:
            ray.kill(actor)

    def prepared_images(private):
        with private.client() as client:
            return {each["Id"]: each["RepoTags"] for each in client.images("realwork/prepared")}

    before = prepared_images(sender)
    asyncio.run(prepare(source.node_id, None))
    made = {id_: names for id_, names in prepared_images(sender).items() if id_ not in before}
    assert len(made) == 1
    asyncio.run(prepare(ray.get_runtime_context().get_node_id(), source.node_id))
    assert prepared_images(target) == made
