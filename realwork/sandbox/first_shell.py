"""A shell that a container starts with, on its own streams: a channel without an exec.

Guarantees: it is used only where this machine sees its process, as these streams do not end when it does; images and
machines without one are asked once.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from realwork.sandbox.answers import AnswerStream, Marked, new_token
from realwork.sandbox.cgroups import Watched, watch
from realwork.sandbox.engine import Engine

SAY_S = 3.0


class FirstShell:
    """That of one container, to be created with `token` and attached to `stream` before it starts.

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
        self._container: tuple[str, int] | None = None

    def started(self, found: Mapping[str, Any]) -> None:
        """`found` is what the engine says of the container that has been started."""
        self._container = (str(found["Id"]), int(found["State"]["Pid"]))

    async def is_there(self) -> bool:
        """Whether the container has started with one."""
        said = self.stream.stdout.numbers
        return await self.stream.wait(lambda: bool(said), SAY_S) and said[0] == 1

    async def watched(self, number: int) -> Watched | None:
        """Its process, which is number `number` inside; null where this machine does not see it."""
        return await asyncio.to_thread(watch, *self._container, number) if self._container else None

    def is_of_no_use(self) -> None:
        """Containers of this image need not start with one any more."""
        self._engine.without_first_shell.add(self._image)


def first_shell(engine: Engine, image: str) -> FirstShell | None:
    """For a new container of `image`; null where there is no use in it."""
    return None if image in engine.without_first_shell else FirstShell(engine, image)
