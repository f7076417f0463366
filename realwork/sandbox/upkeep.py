"""What our own root does in a container, beside what the agent asks for: ends processes, gives files, measures.

Guarantees: each is an exec of its own, or a look from outside: nothing the agent has left can answer in its place.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from realwork.errors import PrepareError, SandboxError, SandboxStuck
from realwork.sandbox import scripts
from realwork.sandbox.cgroups import is_alone
from realwork.sandbox.engine import Engine
from realwork.sandbox.execs import Execs
from realwork.sandbox.hidden import hidden_bytes

GIVE_S = 300.0
MEASURE_S = 30.0
STOP_S = 15.0
MOMENTS_S = (0.002, 0.004, 0.008, 0.016, 0.0)


async def kill_all(found: Mapping[str, Any], execs: Execs) -> None:
    """Kill everything that runs inside, but the first process.

    Where this machine sees that nothing does, or ends within a moment, as a shell does whose input has ended, an exec
    is saved.

    Args:
        found: what the engine says of the container.

    Raises:
        SandboxStuck: something survives.
    """
    for pause_s in MOMENTS_S:
        if await asyncio.to_thread(is_alone, found["Id"], found["State"]["Pid"]):
            return
        await asyncio.sleep(pause_s)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        ended = await execs.script(scripts.KILL_ALL, timeout_s=STOP_S, as_root=True)
        if ended.exit_code == 0:
            return
        await asyncio.sleep(0.05)
    raise SandboxStuck(f"Processes in the container survive their killing for {STOP_S:g} s")


async def give(execs: Execs, path: str, user: str) -> None:
    """Let `user` own what is at `path`, and what is below it.

    Raises:
        PrepareError: there is no such user.
    """
    ended = await execs.script(scripts.HAND_OVER, user, path, timeout_s=GIVE_S, as_root=True)
    if ended.exit_code != 0:
        said = (ended.stderr.content() or ended.stdout.content()).decode(errors="replace").strip()
        raise PrepareError(f"{path} cannot be given to the user {user}: {said or 'it took too long'}")


async def written_bytes(engine: Engine, found: Mapping[str, Any], execs: Execs, volume: str | None) -> int:
    """What a container has written beyond its image.

    Args:
        found: what the engine says of it.
        volume: the folder that everything is written to, if that is a volume, which the engine does not count: it is
            measured inside, where everything else, `du` too, can only be read.
    """
    hidden = await asyncio.to_thread(hidden_bytes, found, with_volumes=volume is None)
    if volume is None:
        look = partial(engine.client.written_bytes, found["Id"])
        return hidden + await engine.call_within(MEASURE_S, "measuring disk use", look)
    ended = await execs.script(scripts.DISK_USE, volume, timeout_s=MEASURE_S, as_root=True)
    said = ended.stdout.content().split()
    if not said or not said[0].isdigit():
        raise SandboxError(f"du does not tell the size of {volume}: {ended.stderr.content()!r}")
    return hidden + (int(said[0]) << 10)
