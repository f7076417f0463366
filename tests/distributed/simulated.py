"""A run whose actors are simulated in this process: the real driver and scheduler, on nodes that do as told."""

import asyncio
from collections import defaultdict

from realwork.config import RunConfig
from realwork.distributed.cluster import Node
from realwork.distributed.driver import Driver
from realwork.distributed.hooks import LocalCalls
from realwork.distributed.hosts import LocalHost
from realwork.distributed.nodes import Examined, Nodes
from realwork.distributed.rollout_actor import RolloutActor
from realwork.distributed.store_actor import StoreActor
from realwork.errors import PrepareError, SandboxError
from realwork.model.budget import Used
from realwork.opening import SilentObserver
from realwork.plugins.managing import RunPlugins
from realwork.preflight import MachineFacts, Question
from realwork.record import RolloutSettings
from realwork.schedule import Schedule
from realwork.types import Doing, Message, RolloutSummary


def config(environments=1, *, init=(), parallel=4, max_retries=3, **control):
    return RunConfig.model_validate(
        {
            "environments": [
                {
                    "id": f"e{number}",
                    "docker_image": "i",
                    "prompt": "p",
                    "unit_tests": ["t"],
                    "init_commands": list(init),
                    "max_retries": max_retries,
                }
                for number in range(environments)
            ],
            "rollout_config": {"max_parallel_rollouts": parallel},
            "template_prompt": "s",
            "episode_control_config": control,
            "sandbox_config": {"kind": "memory"},
        }
    )


class World:
    """What happens on the nodes.

    Attributes:
        played: (node, trajectory id) of each attempt that was begun, in order.
        prepared: (node, source) of each preparation, in order.
        broken: nodes and environments on which everything fails.
        unprepared: nodes on which nothing can be prepared; `spoilt` where the environment is to blame for it.
        slow_to_prepare, slow_to_start: seconds.
        deaf: whether actors do not do as they are told.
        hung: nodes on which no process that starts becomes ready until they are no longer here.
        unstartable: nodes on which every process fails as it starts.
        starts: the node of each process that was started, in order.
        starting, most_starting: processes that start on a node now, and the most so far, by node.
        started_when_first_played: how many had been started when the first attempt was begun.
        blocked: trajectory ids, or `*` for all, that go on until they are cancelled or this is emptied.
        at_once: the most rollouts that were on a node at once, by node.
    """

    def __init__(self):
        self.played, self.prepared = [], []
        self.broken, self.unprepared, self.spoilt, self.blocked = set(), set(), set(), set()
        self.hung, self.unstartable, self.starts = set(), set(), []
        self.starting, self.most_starting = defaultdict(int), defaultdict(int)
        self.slow_to_prepare, self.slow_to_start, self.deaf = 0.01, 0.0, False
        self.at_once, self.now = defaultdict(int), defaultdict(int)
        self.started_when_first_played = 0
        self.rows = []


class Rollouts:
    """Takes the place of `RolloutActor`."""

    def __init__(self, world, node_id):
        self._world, self._node_id = world, node_id
        self._playing = None

    async def setup(self, *_shared):
        world, node = self._world, self._node_id
        world.starting[node] += 1
        world.most_starting[node] = max(world.most_starting[node], world.starting[node])
        try:
            await asyncio.sleep(0.01)
            await asyncio.sleep(world.slow_to_start)
            while node in world.hung:
                await asyncio.sleep(0.01)
        finally:
            world.starting[node] -= 1
        if node in world.unstartable:
            raise SandboxError("the engine does not answer")

    async def prepare(self, spec, _multiplier, source):
        self._world.prepared.append((self._node_id, source))
        await asyncio.sleep(self._world.slow_to_prepare)
        if self._node_id in self._world.unprepared:
            raise SandboxError("it cannot be prepared here")
        if self._node_id in self._world.spoilt:
            raise PrepareError("an init command failed here")

    async def run(self, spec, _queue_s, _multiplier):
        self._playing = asyncio.create_task(self._play(spec))
        try:
            return await self._playing
        except asyncio.CancelledError:
            return RolloutSummary(
                spec=spec, status="cancelled", terminated_reason="cancelled", failure_cause="cancelled"
            )

    async def _play(self, spec):
        world, node = self._world, self._node_id
        if not world.played:
            world.started_when_first_played = len(world.starts)
        world.played.append((node, spec.trajectory_id))
        world.now[node] += 1
        world.at_once[node] = max(world.at_once[node], world.now[node])
        try:
            await asyncio.sleep(0.01)
            while world.blocked & {spec.trajectory_id, "*"}:
                await asyncio.sleep(0.01)
        finally:
            world.now[node] -= 1
        if {node, spec.environment_id} & world.broken:
            return RolloutSummary(
                spec=spec,
                status="failed",
                terminated_reason="environment_error",
                failure_cause="sandbox",
                error_message="the engine is gone",
                retryable=True,
            )
        return RolloutSummary(spec=spec, status="completed", terminated_reason="completed", success=True, reward=1.0)

    async def cancel(self):
        if self._world.deaf:
            await asyncio.Event().wait()
        return self._playing is not None and self._playing.cancel()

    async def stop(self):
        await self.cancel()

    async def doing(self):
        if self._world.deaf:
            await asyncio.Event().wait()
        return Doing(phase="acting", step=2, detail="make", seconds=1.5)

    async def look(self, after):
        return (Message(role="system", content="s"), Message(role="user", content="p"))[after:]


class Store:
    """Takes the place of `StoreActor`; keeps the rows that the driver itself writes."""

    def __init__(self, world):
        self._rows = world.rows

    async def plan(self, _rollout_ids):
        return

    async def next_asked(self):
        await asyncio.Event().wait()

    async def commit_lost(self, lost):
        self._rows.append(lost)
        return RolloutSummary(
            spec=lost.spec,
            status=lost.status,
            terminated_reason=lost.terminated_reason,
            failure_cause=lost.failure_cause,
            retryable=lost.retryable,
            error_message=lost.error_message,
            fails_environment=lost.error_type == "PrepareError",
        )

    async def close(self):
        return


class Host(LocalHost):
    """Actors of this process, each on a node of `world`."""

    def __init__(self, world):
        super().__init__()
        self._world = world

    def start(self, kind, *arguments, node_id=None, **options):
        kinds = {RolloutActor: (Rollouts, self._world, node_id), StoreActor: (Store, self._world)}
        made, *own = kinds[kind]
        if kind is RolloutActor:
            self._world.starts.append(node_id)
        return super().start(made, *own)


def driver_of(world, found, directory, *, rooms=(2, 2), cpus=None, observer=None):
    """A driver of the run file `found` over nodes `n0`, `n1` and so on with those rooms and as many CPUs, or `cpus`."""
    nodes = Nodes(Question(needs=None), 1, None)
    for number, room in enumerate(rooms):
        node = Node(node_id=f"n{number}", name=f"node {number}", memory_mib=room, cpus=cpus or room)
        nodes.found.append(Examined(node=node, facts=MachineFacts(), room=room))
    return Driver(
        Host(world),
        nodes,
        RolloutSettings(config=found, script=()),
        Schedule(found, "r"),
        Used(),
        RunPlugins((), found, LocalCalls()),
        given_key=None,
        run_id="r",
        directory=directory,
        url=None,
        observer=observer or SilentObserver(),
    )
