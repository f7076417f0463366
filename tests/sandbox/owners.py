"""Processes that own a container and are watched by a reaper, to be killed; and the reapers there are."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER = """
import asyncio, sys
from contextlib import suppress
from realwork.errors import SandboxError
from realwork.sandbox.attended import attended
from realwork.sandbox.base import SandboxSpec
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import open_engine

async def main():
    async with open_engine(sys.argv[2]) as engine, attended(engine):
        async with open_container(SandboxSpec.model_validate_json(sys.argv[1]), engine=engine) as sandbox:
            for command in sys.argv[3:]:
                with suppress(SandboxError):
                    await sandbox.execute(command, timeout_s=3, working_directory="/")
            print("open", flush=True)
            await asyncio.sleep(600)

asyncio.run(main())
"""
GONE_S = 15.0
END_S = 25.0
QUIET_S = 1.0


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def reapers(engine, *, starting=False):
    """Process ids of the reapers of that engine; one that is just starting another one, which leads its session, counts
    only if `starting`."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            is_one = engine.url.encode() in words and any(b"realwork.sandbox.reaper" in word for word in words)
            if is_one and (starting or os.getsid(int(entry.name)) != int(entry.name)):
                found.append(int(entry.name))
    return found


@contextmanager
def owner(engine, spec, *commands):
    """A process that holds an open container, in which it has run `commands`, and is watched by a reaper."""
    argv = [sys.executable, "-c", OWNER, spec.model_dump_json(), engine.url, *commands]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout.readline() == b"open\n"
        wait_until(lambda: reapers(engine), 10, "a reaper")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def kill_without_a_reaper(engine, process):
    """End an owner so that no reaper sees it: while it stands still it starts none but one that is on its way."""
    process.send_signal(signal.SIGSTOP)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        for pid in reapers(engine, starting=True):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            quiet_since = time.monotonic()
        time.sleep(0.02)
    process.kill()
    process.wait()


def descendants(pid):
    """Process ids of all that came of `pid`, with it."""
    found = [pid]
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in entry.read_text().split():
            found += descendants(int(child))
    return found
