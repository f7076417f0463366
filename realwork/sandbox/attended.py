"""Sees to it that a reaper watches this process.

Guarantees: for the length of the block a connection to the reaper of this user and engine is open; when there is none,
or it dies, another one is started, in a session of its own that no end of this process or its parents reaches. Nobody
waits for it: a reaper that comes late finds what there is, and without one `realwork gc` does the same.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from realwork.errors import SandboxError
from realwork.sandbox.abilities import abilities
from realwork.sandbox.engine import Engine
from realwork.sandbox.reaper import command

log = logging.getLogger(__name__)

PACKAGE_PARENT = str(Path(__file__).parents[2])
ADDRESSES = ("unix://", "tcp://")
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
START_S = 30.0
UCRED = struct.Struct("3i")


@asynccontextmanager
async def attended(engine: Engine) -> AsyncIterator[None]:
    """A connection to the reaper of `engine` for the length of the block, opened in the background."""
    task = asyncio.create_task(_attend(engine))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _attend(engine: Engine) -> None:
    address = engine.client.address
    if not address.startswith(ADDRESSES):
        log.info("No reaper can reach the engine at %s", address)
        return
    try:
        name = reaper_name((await abilities(engine, None)).engine_id, address)
    except SandboxError as error:
        log.warning("No reaper watches: %s", error)
        return
    pause_s = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        await _until_it_is_gone(name)
        if time.monotonic() - began > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        try:
            await asyncio.to_thread(_start, address, name)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("The reaper could not be started: %s", error)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def reaper_name(engine_id: str, address: str) -> str:
    """The abstract socket of this user's reaper for an engine; engines of one machine may share an id."""
    return f"realwork-reaper-{os.getuid()}-{hashlib.sha256(f'{engine_id} {address}'.encode()).hexdigest()[:32]}"


async def _until_it_is_gone(name: str) -> None:
    """Hold a connection, if there is a reaper, until it closes it, or turns out to be none: a reaper says nothing."""
    try:
        reader, writer = await asyncio.open_unix_connection(f"\0{name}")
    except OSError:
        return
    try:
        peer: socket.socket = writer.get_extra_info("socket")
        _, uid, _ = UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        if uid != os.getuid():
            log.warning("User %d has taken the place of the reaper; only `realwork gc` removes what is left", uid)
        await reader.read(1)
    except OSError as error:
        log.info("The connection to the reaper broke: %s", error)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _start(address: str, name: str) -> None:
    """Start a reaper; not an error: that there is one."""
    nothing = subprocess.DEVNULL
    argv = command(sys.executable, PACKAGE_PARENT, address, name)
    subprocess.run(
        argv, stdin=nothing, stdout=nothing, stderr=nothing, cwd="/", env={},
        start_new_session=True, timeout=START_S, check=True,
    )  # fmt: skip
