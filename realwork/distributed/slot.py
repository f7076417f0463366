"""A place for one rollout at a time, on the driver's side.

Guarantees: whatever becomes of the actor, a rollout that was given to it ends with a row, within a bounded time from
the turn of its process to start; one that is stopped before its turn starts no process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from ray.exceptions import RayError

from realwork.config import EnvironmentConfig, RunConfig
from realwork.distributed.answers import answer
from realwork.distributed.hosts import Host
from realwork.distributed.rollout_actor import RolloutActor
from realwork.distributed.stores import Stores
from realwork.distributed.turns import Turns
from realwork.errors import Cancelled, EpisodeError, ImageError, NodeError, PrepareError, RealworkError
from realwork.record import RolloutSettings, failed_rollout
from realwork.rollout import OVERTIME_S, bound_s, preparation_s
from realwork.text import shorten
from realwork.types import Doing, Message, RolloutSpec, RolloutSummary

ACTOR_MIB = 200
LONG_S = 3.0
START_S = 300.0
"""For a process to start and connect to its engine, once it is its turn: several start at once on a node."""
CANCEL_S = 10.0
DOING_S = 1.0
RAY_NAMES = ("class_name:", "actor_id:", "namespace:", "pid:", "ip:", "name:")
LONGEST_SAID = 500
NOT_BEGUN = "it was stopped before it began"
STORE_WAIT_S = 120.0
STORE_WAIT_STOPPING_S = 10.0


def rollout_memory_mib(config: RunConfig) -> int:
    """What one rollout in flight reserves, since any may be next: the highest limit of a sandbox and its process."""
    return max(config.limits(each).memory_mib for each in config.environments) + ACTOR_MIB


class Shared(NamedTuple):
    """What all slots of a run share.

    Attributes:
        environments: of the run file, by id.
        memory_mib: what each rollout reserves.
        turns: which each process needs to start.
        put: `settings` for the arguments of many calls.
        gate: null where no endpoint is asked.
        key: the object of a key that was given, if one was.
    """

    run_id: str
    host: Host
    turns: Turns
    settings: RolloutSettings
    environments: Mapping[str, EnvironmentConfig]
    memory_mib: int
    put: Any
    stores: Stores
    gate: Any
    key: list[Any]


class Slot:
    """A place for one rollout at a time: an actor on a node that is replaced when it is lost or worn out.

    Attributes:
        is_cut: whether its process was killed by the run; it is of no use then.
    """

    def __init__(self, shared: Shared, node_id: str, *, start_s: float = START_S) -> None:
        self.node_id = node_id
        self.is_cut = False
        self._shared = shared
        self._start_s = start_s
        self._actor: Any = None
        self._starting: asyncio.Task[Any] | None = None
        self._played = 0
        self._is_stopping = False

    def begin(self) -> None:
        """Have the actor's process started when it has its turn, before anything is to be played; waits for nothing."""
        if self._starting is None:
            self._played = 0
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_note_failure)

    async def _start(self) -> Any:
        """The actor, set up, for which it has its turn on the node.

        Raises:
            NodeError: it took longer than it may; else as the actor raised it.
        """
        shared = self._shared
        options = {"num_cpus": 0, "memory": shared.memory_mib << 20, "max_restarts": 0}
        given = (shared.run_id, shared.put, shared.stores, shared.gate, shared.key, shared.host.calls)
        try:
            async with shared.turns.on(self.node_id).taken(self._start_s):
                actor = self._actor = shared.host.start(RolloutActor, node_id=self.node_id, **options)
                await answer(actor.setup.remote(*given))
        except TimeoutError as error:
            if self._actor is not None:
                shared.host.kill(self._actor)  # it may hang, while its turn is another's
            said = f"no process of the rollout started on its node within {self._start_s:g} s"
            raise NodeError(f"{said}: others may use the memory that Ray counts there, or it is too busy") from error
        return actor

    async def prepare(
        self, spec: RolloutSpec, *, timeout_multiplier: float, source: str | None, on_long: Callable[[], None]
    ) -> None:
        """Prepare the environment of `spec` on the actor's node.

        `source` is a node that has its image already. `on_long` is called when that takes more than a moment.

        Raises:
            EpisodeError: it cannot be prepared there.
        """
        config, environment = self._stretched(spec, timeout_multiplier)
        longest_s = preparation_s(config, environment) + OVERTIME_S

        async def prepared(actor: Any) -> None:
            late = asyncio.get_running_loop().call_later(LONG_S, on_long)
            try:
                await answer(actor.prepare.remote(spec, timeout_multiplier, source))
            finally:
                late.cancel()

        await self._ask(longest_s, prepared)

    async def play(self, spec: RolloutSpec, *, queue_s: float, timeout_multiplier: float) -> RolloutSummary:
        """The outcome of `spec`, played with its timeouts multiplied, which stands in the dataset.

        Raises:
            StoreError: not even a row that says so could be written.
            RayError: the store is gone.
            TimeoutError: the store does not answer.
        """
        config, environment = self._stretched(spec, timeout_multiplier)
        longest_s = bound_s(config, environment)
        try:
            summary: RolloutSummary = await self._ask(
                longest_s, lambda actor: answer(actor.run.remote(spec, queue_s, timeout_multiplier))
            )
        except EpisodeError as error:
            return await self.end_with(spec, error)
        self._played += 1
        if self._played == config.rollout_config.rollouts_per_actor:
            self.kill()
        return summary

    def _stretched(self, spec: RolloutSpec, timeout_multiplier: float) -> tuple[RunConfig, EnvironmentConfig]:
        """The run file and the environment of `spec`, its timeouts multiplied."""
        config = self._shared.settings.stretched(timeout_multiplier).config
        if timeout_multiplier == 1.0:
            return config, self._shared.environments[spec.environment_id]
        return config, config.environment(spec.environment_id)

    async def _ask(self, longest_s: float, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """What `work` with the actor returns within `longest_s` of its start; an actor that failed itself is killed.

        Raises:
            EpisodeError: as the actor raised it, `NodeError` if it did not answer, `Cancelled` if it was not to begin.
        """
        if self.is_cut or self._is_stopping:
            raise Cancelled(NOT_BEGUN)
        try:
            actor = await self._started()
            async with asyncio.timeout(longest_s):
                return await work(actor)
        except (PrepareError, ImageError, Cancelled):
            raise
        except EpisodeError:
            self.kill()
            raise
        except TimeoutError as error:
            self.kill()
            raise NodeError(f"the rollout's process gave no answer for {longest_s:g} s") from error
        except RayError as error:
            self.kill()
            if self.is_cut:
                raise Cancelled("the run was stopped, and the rollout's process did not answer") from error
            raise NodeError(f"the rollout's process is gone: {_said(error)}") from error
        except RealworkError as error:
            self.kill()
            raise NodeError(f"the rollout's row was refused: {error}") from error

    async def _started(self) -> Any:
        """The actor, once it is set up.

        Raises:
            Cancelled: the slot was stopped before; else as `_start` does.
        """
        self.begin()
        starting = self._starting
        assert starting is not None, "it was begun"
        await asyncio.wait([starting])
        if starting.cancelled():
            raise Cancelled(NOT_BEGUN)
        return starting.result()

    async def end_with(self, spec: RolloutSpec, error: EpisodeError) -> RolloutSummary:
        """The row of a rollout that `error` ended before its actor could write one. Raises as `play` does."""
        lost = failed_rollout(spec, self._shared.settings, error)
        async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._is_stopping else STORE_WAIT_S):
            summary: RolloutSummary = await answer(self._shared.stores.of(spec).commit_lost.remote(lost))
        return summary

    def stop(self) -> None:
        """Cut what is being played."""
        self._is_stopping = True
        if self._actor is not None:
            self._actor.stop.remote()
        elif self._starting is not None:
            self._starting.cancel()

    async def cancel(self) -> None:
        """Cut what is being played, and nothing else; a process that does not answer is ended."""
        try:
            async with asyncio.timeout(CANCEL_S):
                if self._actor is not None and await answer(self._actor.cancel.remote()):
                    return
        except (RayError, RealworkError, TimeoutError):
            pass
        self.cut()

    async def look(self, after: int) -> tuple[Message, ...]:
        """The conversation so far of what is being played, without the first `after` messages.

        Raises:
            NodeError: the process does not answer.
        """
        try:
            async with asyncio.timeout(CANCEL_S):
                found: tuple[Message, ...] = await answer(self._actor.look.remote(after)) if self._actor else ()
        except (RayError, TimeoutError) as error:
            raise NodeError("the rollout's process does not answer") from error
        return found

    async def doing(self) -> Doing | None:
        """What is being played is at; null if its process does not say so within a moment."""
        if self._actor is None:
            return Doing(phase="waiting")
        if self._starting is not None and not self._starting.done():
            return Doing(phase="starting")
        try:
            async with asyncio.timeout(DOING_S):
                found: Doing = await answer(self._actor.doing.remote())
        except (RayError, NodeError, TimeoutError):
            return None
        return found

    def cut(self) -> None:
        """Kill what was stopped and still goes on: that is an end by the run, and no failure of the node."""
        self.is_cut = True
        self.kill()

    def kill(self) -> None:
        """End the actor's process, or its waiting for its turn to start; the next rollout gets a new one."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._actor is not None:
            self._shared.host.kill(self._actor)
            self._actor = None


def _note_failure(starting: asyncio.Task[Any]) -> None:
    """Whoever asks the slot next is told; nobody may."""
    if not starting.cancelled():
        starting.exception()


def _said(error: RayError) -> str:
    """What Ray says of a lost actor, without the names that Ray gives it."""
    lines = [line.strip() for line in str(error).splitlines()]
    return shorten(" ".join(line for line in lines if line and not line.startswith(RAY_NAMES)), LONGEST_SAID)
