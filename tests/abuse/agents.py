"""Plays hostile agents: one in a container with a channel, one in a container without, a well-behaved one beside them.

Guarantees: when `attack` returns it has asserted what holds for every case, whatever the agents did: the bystander was
answered as ever and succeeded, this process stayed small, no container is left, and every rollout has one row.
"""

import asyncio
import gc
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from docker.errors import DockerException

from realwork.backends import open_backends
from realwork.config import EnvironmentConfig, RunConfig
from realwork.dataset.commits import make_commit
from realwork.dataset.parts import ids_in, part_files
from realwork.dataset.store import TrajectoryStore
from realwork.model.base import Model
from realwork.model.scripted import ScriptedCall, ScriptedModel, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import Backends, run_rollout
from realwork.sandbox import labels
from realwork.sandbox.base import Sandbox
from realwork.sandbox.engine import EngineClient, connect
from realwork.secret import KeySource, Secret
from realwork.types import Message, Observation, Reply, RolloutSpec, Trajectory

IMAGE = "realwork/base:bookworm"
MODES = ("channel", "exec")
CANARY = "sk-canary-5"
"""The key of every run."""
PIDS = 128
MOST_GROWTH_KIB = 64 << 10
LIMITS = {"network": "none", "memory_mib": 256, "pids": PIDS, "cpus": 0.5, "disk_mib": 512, "output_limit_kib": 64}
TIMEOUTS = {"global_timeout": 60.0, "command_timeout": 5.0, "test_timeout": 20.0}
PROBE_S = 0.1
WITNESS_S = 0.2
Look = Callable[[], Awaitable[None]]


@dataclass
class Container:
    """What the host saw of a container: the engine's word, and the most at any time of all else."""

    inspected: dict[str, Any]
    processes: int = 0
    log_bytes: int = 0
    written_bytes: int = 0


@dataclass
class Played:
    """One rollout, as it was recorded and as the host saw it."""

    mode: str
    trajectory: Trajectory
    took_s: float
    container: Container = field(init=False)
    beside: "Played" = field(init=False, repr=False)

    @property
    def observations(self) -> list[Observation]:
        """Those of the agent's actions, without that of `mark_done`."""
        found = [one for step in self.trajectory.steps for one in step.observations]
        return [one for one in found if one.tool_name != "mark_done"]

    @property
    def latency_s(self) -> float:
        """The median time of a command."""
        return statistics.median(one.duration_s for one in self.observations)


def tool(name: str, **arguments: Any) -> ScriptedReply:
    return ScriptedReply(tool_calls=(ScriptedCall(name=name, arguments=arguments),))


def attack(
    *actions: str | ScriptedReply,
    modes: Sequence[str] = MODES,
    reason: str = "completed",
    timeouts: dict[str, float] | None = None,
    endpoint: str | None = None,
    reward: float = 1.0,
    **environment: Any,
) -> list[Played]:
    """Play `actions` (a text is a command), then `mark_done`, once in each of `modes`, all at the same time.

    With an `endpoint` the replies come from there. Every rollout has to end with `reason`, graded with `reward`.
    """
    settings = _settings(environment | {"timeout_config": timeouts or {}}, endpoint)
    replies = tuple(tool("execute_command", command=one) if isinstance(one, str) else one for one in actions)
    client = connect()
    try:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory_kib("VmRSS")
        played, bystander = asyncio.run(_play_all(settings, replies, modes, client))
        grown = _memory_kib("VmHWM") - before
        assert grown < MOST_GROWTH_KIB, f"this process grew by {grown} KiB"
        assert not client.containers(all=True, filters={"label": f"{labels.RUN}={bystander.trajectory.spec.run_id}"})
    finally:
        client.close()
    _assert_unharmed(bystander)
    for one in played:
        assert one.trajectory.terminated_reason == reason, (one.mode, one.trajectory.error_message)
        assert one.trajectory.reward == reward, (one.mode, one.trajectory.test_results)
    _assert_one_row_each([one.trajectory for one in (*played, bystander)])
    return played


def _settings(environment: dict[str, Any], endpoint: str | None) -> RolloutSettings:
    common = {"docker_image": IMAGE, "prompt": "Do as you like."}
    config = RunConfig.model_validate(
        {
            "environments": [
                {"id": "agent", "unit_tests": ["true"], **common, **environment},
                {"id": "bystander", "unit_tests": ["test $(cat count) -ge 3"], **common},
            ],
            "rollout_config": {"max_steps": 10_000},
            "sandbox_config": LIMITS,
            "timeout_config": TIMEOUTS,
            "llm_config": {"base_url": endpoint} if endpoint else {},
            "template_prompt": "You are an agent.",
        }
    )
    return RolloutSettings(config=config, script=None if endpoint else (), key=KeySource(kind="given"))


async def _play_all(
    settings: RolloutSettings, replies: tuple[ScriptedReply, ...], modes: Sequence[str], client: EngineClient
) -> tuple[list[Played], Played]:
    run_id, over = uuid.uuid4().hex[:12], asyncio.Event()
    models: list[Model | None] = [None if settings.script is None else _Scripted(replies) for _ in modes]
    specs = [RolloutSpec(run_id=run_id, environment_id="agent", sample_index=number) for number in range(len(modes))]
    beside = RolloutSpec(run_id=run_id, environment_id="bystander", sample_index=0)
    seen: dict[str, Container] = {}
    look = partial(asyncio.to_thread, _look, client, run_id, seen)
    play = partial(_play, settings, look)
    async with asyncio.TaskGroup() as tasks:
        bystander = tasks.create_task(play(beside, "channel", _Prober(over)))
        tasks.create_task(_repeat(look, over))
        tasks.create_task(_repeat(partial(asyncio.to_thread, _count, seen), over))
        try:
            played = await asyncio.gather(*map(play, specs, modes, models))
        finally:
            over.set()
    for one in (*played, bystander.result()):
        assert one.trajectory.spec.rollout_id in seen, one.trajectory.error_message
        one.container, one.beside = seen[one.trajectory.spec.rollout_id], bystander.result()
    return list(played), bystander.result()


async def _play(settings: RolloutSettings, look: Look, spec: RolloutSpec, mode: str, model: Model | None) -> Played:
    began = time.monotonic()
    async with open_backends(settings, given_key=Secret(CANARY), with_channel=mode == "channel") as backends:
        trajectory = await run_rollout(spec, settings, _Given(backends, look, model), NoHooks())
    return Played(mode, trajectory, time.monotonic() - began)


class _Given:
    """The real `backends`, whose sandbox is looked at once it is open, and a ready model if one is given."""

    def __init__(self, backends: Backends, look: Look, model: Model | None) -> None:
        self._backends = backends
        self._look = look
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backends, name)

    @asynccontextmanager
    async def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AsyncIterator[Sandbox]:
        async with self._backends.open_sandbox(spec, environment) as sandbox:
            await self._look()
            yield sandbox

    @asynccontextmanager
    async def open_model(self, spec: RolloutSpec) -> AsyncIterator[Model]:
        if self._model is not None:
            yield self._model
            return
        async with self._backends.open_model(spec) as model:
            yield model


class _Scripted(ScriptedModel):
    """Plays `replies`, then marks done."""

    def __init__(self, replies: tuple[ScriptedReply, ...]) -> None:
        super().__init__("scripted", replies, "")


class _Prober(_Scripted):
    """Runs one small command after the other until the attack is over, then marks done."""

    def __init__(self, over: asyncio.Event) -> None:
        super().__init__(())
        self._over = over
        self._probes = 0

    async def complete(self, messages: Sequence[Message], *, deadline_s: float) -> Reply:
        if self._over.is_set() and self._probes >= 3:
            return await super().complete(messages, deadline_s=deadline_s)
        await asyncio.sleep(PROBE_S)
        self._probes += 1
        command = f"echo {self._probes} >count; cat count; echo err >&2; exit {self._probes % 200}"
        return await _Scripted((tool("execute_command", command=command),)).complete(messages, deadline_s=deadline_s)


def _assert_unharmed(bystander: Played) -> None:
    trajectory = bystander.trajectory
    assert trajectory.reward == 1.0, trajectory.error_message
    answers = [(one.output, one.error, one.exit_code) for one in bystander.observations]
    assert answers == [(f"{n}\n", "err\n", n % 200) for n in range(1, len(answers) + 1)]
    assert bystander.container.processes < 16


def _assert_one_row_each(trajectories: list[Trajectory]) -> None:
    async def commit(directory: Path) -> None:
        async with TrajectoryStore(directory) as store:
            for trajectory in trajectories:
                await store.commit(make_commit(trajectory))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(commit(Path(folder)))
        ids = [name for part in part_files(Path(folder)) for name in ids_in(part)]
    assert ids == [one.spec.trajectory_id for one in trajectories]


async def _repeat(look: Look, over: asyncio.Event) -> None:
    while not over.is_set():
        await look()
        await asyncio.sleep(WITNESS_S)


def _look(client: EngineClient, run_id: str, seen: dict[str, Container]) -> None:
    """Note in `seen` what the engine says of the containers of the run, by rollout id."""
    for one in client.containers(filters={"label": f"{labels.RUN}={run_id}"}):
        rollout_id = one["Labels"][labels.ROLLOUT]
        if rollout_id not in seen:
            seen[rollout_id] = Container(client.inspect_container(one["Id"]))
        container = seen[rollout_id]
        with suppress(DockerException):
            container.written_bytes = max(container.written_bytes, client.written_bytes(one["Id"]))
        log = container.inspected["LogPath"]
        with suppress(OSError):
            container.log_bytes = max(container.log_bytes, Path(log).stat().st_size if log else 0)


def _count(seen: dict[str, Container]) -> None:
    """Note in `seen` how many processes the containers have, whatever the engine is busy with."""
    groups = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            groups.append((process / "cgroup").read_text())
    for container in list(seen.values()):
        container.processes = max(container.processes, sum(container.inspected["Id"] in group for group in groups))


def _memory_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
