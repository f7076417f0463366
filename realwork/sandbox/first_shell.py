"""A shell that a container starts with, on its own streams: a channel without an exec.

Guarantees: it is used only where this machine sees its process, as these streams do not end when it does, and not
before the first process is one that nothing inside can look into. Containers of an image that has none start without
from then on.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from realwork.errors import SandboxError
from realwork.sandbox.answers import AnswerStream, Marked, new_token
from realwork.sandbox.cgroups import Watched, command_of, watch
from realwork.sandbox.engine import Engine

log = logging.getLogger(__name__)

SAY_S = 3.0
GUARDED_S = 1.0
LOOK_S = 0.005
FIRST_COMMAND = b"sleep"
"""What the first process is once it has started everything else."""
EVERY_IMAGE = ""


class FirstShell:
    """That of one container, to be created with `token` and attached before it starts.

    Attributes:
        token: what the container says before whether it has such a shell.
        stream: closed by the owner.
    """

    def __init__(self, engine: Engine, image: str) -> None:
        self.token = new_token()
        self.stream = AnswerStream()
        self.stream.stdout = Marked([self.token], 0)
        self._engine = engine
        self._image = image
        self._is_attached = False
        self._container_id = ""
        self._pid = 0

    async def attach(self, container_id: str) -> None:
        """Connect with the streams of a container that has not started; where the engine refuses, there is no shell."""
        try:
            await self._engine.attach_container(container_id, self.stream)
            self._is_attached = True
        except SandboxError as error:
            log.info("The engine lets nobody speak with a container itself, so commands take an exec: %s", error)
            self._engine.without_first_shell.add(EVERY_IMAGE)

    def started(self, found: Mapping[str, Any]) -> None:
        """`found` is what the engine says of the container that has been started."""
        self._container_id, self._pid = str(found["Id"]), int(found["State"]["Pid"])

    async def is_there(self) -> bool:
        """Whether the container has started with one, and its first process with all that comes before the agent."""
        if not self._is_attached:
            return False
        said = self.stream.stdout.numbers
        if not await self.stream.wait(lambda: bool(said), SAY_S):
            return False
        if said[0] == 1 and await self._is_guarded():
            return True
        self._engine.without_first_shell.add(self._image)
        return False

    async def _is_guarded(self) -> bool:
        """Whether the first process has started all that it starts, as far as this machine sees; it does soon."""
        deadline = time.monotonic() + GUARDED_S
        while (command := command_of(self._pid)) != FIRST_COMMAND:
            if not command or time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    def watched(self, number: int) -> Watched | None:
        """Its process, which is number `number` inside; null where this machine does not see it."""
        return watch(self._container_id, self._pid, number)


def first_shell(engine: Engine, image: str) -> FirstShell | None:
    """For a new container of `image`; null where there is no use in it."""
    return None if {image, EVERY_IMAGE} & engine.without_first_shell else FirstShell(engine, image)
