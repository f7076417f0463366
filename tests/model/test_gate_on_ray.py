"""The gate that rollouts in several processes share, on a real local Ray."""

import asyncio
import logging
import time

import pytest

import realwork.distributed  # noqa: F401 - sets Ray's switches before it is imported
from realwork.config import LlmConfig
from realwork.distributed.gate import OPTIONS, GateActor, RayGate
from realwork.model.budget import Used
from realwork.types import Usage

TEN = Usage(prompt_tokens=6, completion_tokens=4)


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def with_gates(work, **config):
    """What `work` returns, given the actor and two gates that pass through it."""
    import ray

    async def worked():
        llm = LlmConfig(**config)
        actor = ray.remote(GateActor).options(**OPTIONS).remote(llm, Used())
        gates = [RayGate(actor, llm) for _ in range(2)]
        try:
            return await asyncio.wait_for(work(actor, *gates), 60)
        finally:
            for gate in gates:
                gate.close()
            ray.kill(actor)

    return asyncio.run(worked())


async def until_paused(gate):
    while True:
        try:
            await gate.ready(0.01)
        except TimeoutError:
            return
        await asyncio.sleep(0.05)


def test_a_pause_reaches_the_other_processes_without_being_asked_for():
    async def work(actor, one, other):
        await actor.reserve.remote(9.0)
        one.pause(3.0)
        began = time.monotonic()
        await until_paused(other)
        told_s = time.monotonic() - began
        await other.ready(10.0)
        return told_s, time.monotonic() - began

    told_s, passed_s = with_gates(work)
    assert told_s < 2.5
    assert passed_s > 2.0


def test_a_gate_that_was_killed_knows_again_what_was_used_and_still_tells_of_pauses():
    import ray
    from ray.exceptions import RayError

    async def work(actor, one, other):
        for _ in range(3):
            one.used(TEN)
            other.used(TEN)
        await actor.reserve.remote(9.0)
        ray.kill(actor, no_restart=False)
        spent = None
        while spent is None:
            one.used(TEN)
            other.used(TEN)
            asked = actor.spent.remote()
            try:
                spent = await asyncio.wait_for(asked, 1.0)
            except (RayError, TimeoutError):  # the actor is on its way up
                await asyncio.sleep(0.2)
        while True:
            one.pause(30.0)
            try:
                await asyncio.wait_for(until_paused(other), 2.0)
            except TimeoutError:
                continue
            return spent

    assert "max_run_tokens (100) is used up" in with_gates(work, max_run_tokens=100)


def test_without_a_gate_a_rollout_goes_on():
    import ray

    async def work(actor, one, _other):
        await actor.reserve.remote(9.0)
        ray.kill(actor)
        one.used(TEN)
        await one.ready(30.0)
        return True

    assert with_gates(work, requests_per_minute=600)
