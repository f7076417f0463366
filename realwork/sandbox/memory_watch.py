"""Tells whether the memory limit of a container has ended a process."""

from realwork.sandbox import scripts
from realwork.sandbox.execs import Ended, Execs

LOOK_S = 15.0
SIGNS = (b"MemoryError", b"Killed", b"annot allocate memory")


class MemoryWatch:
    """Counts the processes that the limit has ended in one container."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs
        self._kills = 0

    async def was_out(self, ended: Ended, stderr: bytes) -> bool:
        """Whether the limit has ended a process since the last command, or the command says so itself.

        Raises:
            SandboxError: the container does not answer.
        """
        kills = ended.oom_kills
        if kills is None and ended.exit_code == 0 and not any(sign in stderr for sign in SIGNS):
            return False
        if kills is None:
            counted = await self._execs.script(scripts.OOM_KILLS, timeout_s=LOOK_S)
            said = counted.stdout.content().strip()
            kills = int(said) if said.isdigit() else self._kills
        has_grown, self._kills = kills > self._kills, kills
        return has_grown or (ended.exit_code != 0 and b"MemoryError" in stderr)
