"""Whose fault it is that a command could not be started: what runs inside has prevented it, or the engine failed.

Guarantees: what the agent did is an answer to the agent; no test passes or fails by what stands in a shell's place.
"""

from realwork.errors import SandboxError
from realwork.sandbox.execs import Ended

NOT_STARTED_BY_AGENT = (b"no such file", b"permission denied", b"format error", b"too long", b"not found")
"""What the runtime says when `/bin/sh` has been removed or replaced inside."""
RUNTIME = b"runtime exec failed"
STARVED_BY_AGENT = (b"init-p", b"final child", b"temporarily unavailable", b"cannot allocate memory", b"out of memory")
"""What it says when what runs inside has used up the processes or the memory of the container."""


def check_fault_inside(ended: Ended, *, apart: bool) -> None:
    """Let pass a command that could not start because of what happened inside, as a shell would say it.

    What a replaced `/bin/sh` says in its place is an answer to the agent, and none to a test (`apart`).

    Raises:
        SandboxError: the engine or its runtime failed.
    """
    said = (ended.stdout.content() + ended.stderr.content()).lower()
    refused = ended.exit_code in (126, 127)
    if refused and any(sign in said for sign in NOT_STARTED_BY_AGENT):
        return
    if not apart and (RUNTIME not in said or any(sign in said for sign in STARVED_BY_AGENT)):
        return
    raise SandboxError(f"The command could not be started: {said.decode(errors='replace').strip()}")
