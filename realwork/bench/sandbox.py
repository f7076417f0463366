"""The sandbox beside what the engine and the host can do alone, all measured in one run.

What is compared is measured in turn, one of each after the other, so that a busy machine slows all of them alike.
"""

import asyncio
import math
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from realwork.backends import open_backends
from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.record import RolloutSettings
from realwork.rollout import Backends
from realwork.sandbox.base import Sandbox, SandboxSpec
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.kept import prepared_images, remove
from realwork.sandbox.yardstick import raw_container, raw_exec
from realwork.types import Record, RolloutSpec

COMMAND = "echo hello"
CONTAINERS = 8
FILE_SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
INIT_S = 5
FILE_REPEATS = {"1 KiB": 50, "1 MiB": 10, "64 MiB": 3}

Action = Callable[[], Awaitable[object]]


class Seconds(Record):
    """How long one thing took, over many times."""

    median_s: float
    p95_s: float


class FileSeconds(Record):
    """The median of writing and of reading a file of one size."""

    write_s: float
    read_s: float


class InitSeconds(Record):
    """How long it took to open and close `sandboxes` of an environment with one slow init command.

    Attributes:
        sandboxes: how many.
        first_s: when nothing was prepared.
        second_s: right after that.
    """

    sandboxes: int
    first_s: float
    second_s: float


class SandboxBench(Record):
    """What was measured.

    Attributes:
        channel: one command through the channel; `exec_guarded` through an exec of its own with the same guarantees,
            `exec_raw` as `docker exec` does it, `host_shell` with `sh -c` on the host.
        commands_per_s: with 8 containers at once, through the channel and through guarded execs.
        life: open and close a sandbox; `life_raw`: create, start and remove a container without limits; `life_command`:
            a sandbox with one command, `life_exec` one whose first command opens the channel with an exec.
        files: by size.
        init: with an init command of `INIT_S` seconds.
    """

    channel: Seconds
    exec_guarded: Seconds
    exec_raw: Seconds
    host_shell: Seconds
    commands_per_s: dict[str, float]
    life: Seconds
    life_raw: Seconds
    life_command: Seconds
    life_exec: Seconds
    files: dict[str, FileSeconds]
    init: InitSeconds

    @property
    def faster_than_exec(self) -> float:
        """How many times faster a command is through the channel than through `docker exec`, by the medians."""
        return self.exec_raw.median_s / self.channel.median_s

    @property
    def life_ratio(self) -> float:
        """Our life cycle over the raw one, by the medians."""
        return self.life.median_s / self.life_raw.median_s


async def bench_sandbox(
    image: str, *, commands: int, lives: int, sandboxes: int, on_progress: Callable[[str], None]
) -> SandboxBench:
    """Measure `commands` commands of each kind, `lives` life cycles, and `sandboxes` with an init command.

    Raises:
        SandboxError: there is no engine, or not the image.
    """
    async with open_engine() as engine:
        on_progress(f"{commands} commands each through the channel, as an exec, and on the host")
        channel, exec_guarded, exec_raw, host_shell = await _latencies(engine, image, commands)
        on_progress(f"Commands in {CONTAINERS} containers at once")
        commands_per_s = await _throughputs(engine, image, commands)
        on_progress(f"{lives} life cycles each")
        life, life_raw, life_command, life_exec = await _lives(engine, image, lives)
        on_progress("Files of " + ", ".join(FILE_SIZES))
        files = await _files(engine, image)
        on_progress(f"{sandboxes} sandboxes with an init command of {INIT_S} s, twice")
        init = await _init(engine, image, sandboxes)
    return SandboxBench(
        channel=channel,
        exec_guarded=exec_guarded,
        exec_raw=exec_raw,
        host_shell=host_shell,
        commands_per_s=commands_per_s,
        life=life,
        life_raw=life_raw,
        life_command=life_command,
        life_exec=life_exec,
        files=files,
        init=init,
    )


async def _latencies(engine: Engine, image: str, count: int) -> list[Seconds]:
    async with (
        open_container(_spec(image), engine=engine) as channel,
        open_container(_spec(image), engine=engine, with_channel=False) as execs,
        raw_container(engine, image) as raw,
    ):
        return await _in_turn(
            [partial(_run, channel), partial(_run, execs), partial(raw_exec, engine, raw, COMMAND), _run_on_host],
            count,
        )


async def _throughputs(engine: Engine, image: str, count: int) -> dict[str, float]:
    rates = {}
    for name, with_channel in (("channel", True), ("exec", False)):
        each = max(count // (1 if with_channel else 10), 1)
        async with AsyncExitStack() as stack:
            sandboxes = [
                await stack.enter_async_context(open_container(_spec(image), engine=engine, with_channel=with_channel))
                for _ in range(CONTAINERS)
            ]
            began = time.monotonic()
            await asyncio.gather(*(_run_often(sandbox, each) for sandbox in sandboxes))
            rates[name] = CONTAINERS * each / (time.monotonic() - began)
    return rates


async def _lives(engine: Engine, image: str, count: int) -> list[Seconds]:
    async def ours() -> None:
        async with open_container(_spec(image), engine=engine):
            pass

    async def raw() -> None:
        async with raw_container(engine, image):
            pass

    async def with_command() -> None:
        async with open_container(_spec(image), engine=engine) as sandbox:
            await _run(sandbox)

    async def with_exec() -> None:
        before = engine.without_first_shell
        engine.without_first_shell = {*before, image}
        try:
            await with_command()
        finally:
            engine.without_first_shell = before

    return await _in_turn([ours, raw, with_command, with_exec], count)


async def _files(engine: Engine, image: str) -> dict[str, FileSeconds]:
    measured = {}
    async with open_container(_spec(image), engine=engine) as sandbox:
        for name, size in FILE_SIZES.items():
            write, read = await _in_turn(
                [
                    partial(sandbox.write_file, "/workspace/file", bytes(size)),
                    partial(sandbox.read_file, "/workspace/file", limit_bytes=size),
                ],
                FILE_REPEATS[name],
            )
            measured[name] = FileSeconds(write_s=write.median_s, read_s=read.median_s)
    return measured


async def _init(engine: Engine, image: str, sandboxes: int) -> InitSeconds:
    name = f"bench-{uuid.uuid4().hex}"
    config = RunConfig.model_validate(
        {
            "environments": [
                {
                    "id": name,
                    "docker_image": image,
                    "prompt": "bench",
                    "unit_tests": ["true"],
                    "init_commands": [f"sleep {INIT_S}; echo {name} >>prepared"],
                    "init_network": "none",
                }
            ],
            "template_prompt": "bench",
            "rollout_config": {},
        }
    )
    settings = RolloutSettings(config=config, script=())
    async with open_backends(settings) as backends:
        try:
            first_s, second_s = [await _open_all(backends, config, sandboxes) for _ in range(2)]
            return InitSeconds(sandboxes=sandboxes, first_s=first_s, second_s=second_s)
        finally:
            for each in await prepared_images(engine):
                if each.environment == name:
                    await remove(engine, each)


async def _open_all(backends: Backends, config: RunConfig, sandboxes: int) -> float:
    """Seconds until so many sandboxes have been opened, looked into and closed, `CONTAINERS` at a time."""
    places = asyncio.Semaphore(CONTAINERS)

    async def one(number: int) -> None:
        environment = config.environments[0]
        spec = RolloutSpec(run_id="bench", environment_id=environment.id, sample_index=number)
        async with places, backends.open_sandbox(spec, environment) as sandbox:
            found = await sandbox.read_file("/workspace/prepared")
            if len(found.content.split()) != 1:
                raise SandboxError(f"the init command has left {found.content!r}")

    began = time.monotonic()
    await asyncio.gather(*map(one, range(sandboxes)))
    return time.monotonic() - began


async def _in_turn(actions: Sequence[Action], count: int) -> list[Seconds]:
    """Every action `count` times, one after the other; each once before that is measured."""
    for action in actions:
        await action()
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(count):
        for action, seconds in zip(actions, taken, strict=True):
            began = time.monotonic()
            await action()
            seconds.append(time.monotonic() - began)
    return [Seconds(median_s=statistics.median(each), p95_s=_p95(each)) for each in taken]


def _p95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]


async def _run(sandbox: Sandbox) -> None:
    result = await sandbox.execute(COMMAND, timeout_s=60.0, working_directory="/workspace")
    if result.stdout != b"hello\n":
        raise SandboxError(f"{COMMAND!r} gave {result}")


async def _run_often(sandbox: Sandbox, count: int) -> None:
    for _ in range(count):
        await _run(sandbox)


async def _run_on_host() -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", COMMAND, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    await process.communicate()


def _spec(image: str) -> SandboxSpec:
    return SandboxSpec(name=f"realwork-bench-{uuid.uuid4().hex}", image=image, deadline_s=900.0)
