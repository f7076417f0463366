"""Where the actors of a run live: in processes of a Ray cluster, or as objects of this one.

Guarantees: whoever calls an actor need not know which it is: `actor.method.remote(...)` begins the call, whether or not
anybody waits for it, and gives what its answer can be awaited from, by several and more than once.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from realwork.distributed.cluster import only_on, this_node
from realwork.distributed.hooks import LocalCalls
from realwork.errors import NodeError, blame
from realwork.plugins.panel import CallPlugin


class Host(Protocol):
    """What starts and ends the actors of a run.

    Attributes:
        calls: what its actors call plugins through, null where each makes Ray tasks of them.
    """

    calls: CallPlugin | None

    def start(self, kind: type, *arguments: Any, node_id: str | None = None, **options: Any) -> Any:
        """An actor of `kind` on a node, this one if that is null; `options` are Ray's."""

    def share(self, value: Any) -> Any:
        """`value` for the arguments of many calls."""

    def kill(self, actor: Any) -> None:
        """End an actor and all that it is at; waits for nothing."""

    async def close(self) -> None:
        """Wait for what killed actors have to let go of."""


class RayHost:
    """The cluster that this process is connected to."""

    calls: CallPlugin | None = None

    def start(self, kind: type, *arguments: Any, node_id: str | None = None, **options: Any) -> Any:
        """See `Host`."""
        where = only_on(node_id or this_node())
        return ray.remote(kind).options(scheduling_strategy=where, **options).remote(*arguments)

    def share(self, value: Any) -> Any:
        """See `Host`."""
        return ray.put(value)

    def kill(self, actor: Any) -> None:
        """See `Host`."""
        ray.kill(actor)

    async def close(self) -> None:
        """See `Host`; their processes end by themselves."""


class LocalHost:
    """This process, without Ray: what an actor does goes on in the event loop that called it."""

    def __init__(self) -> None:
        self.calls: CallPlugin | None = LocalCalls()
        self._ending: set[asyncio.Task[None]] = set()

    def start(self, kind: type, *arguments: Any, node_id: str | None = None, **options: Any) -> Any:
        """See `Host`."""
        return _LocalActor(kind(*arguments))

    def share(self, value: Any) -> Any:
        """See `Host`."""
        return value

    def kill(self, actor: Any) -> None:
        """See `Host`."""
        self._ending.add(asyncio.create_task(actor._end()))

    async def close(self) -> None:
        """See `Host`."""
        await asyncio.gather(*self._ending)


class _LocalActor:
    """Its attributes are the methods of `thing`, to be called as those of a Ray actor; it has none of its own."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing
        self._running: set[asyncio.Task[Any]] = set()

    def __getattr__(self, name: str) -> "_Method":
        return _Method(self, name)

    def _begin(self, name: str, arguments: tuple[Any, ...]) -> "_Call":
        task = asyncio.create_task(_guarded(getattr(self._thing, name)(*arguments)))
        self._running.add(task)
        task.add_done_callback(self._forget)
        return _Call(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it

    async def _end(self) -> None:
        """Cut what is going on, and let go of what `thing` holds."""
        running = [*self._running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if hasattr(self._thing, "end"):
            await self._thing.end()


async def _guarded(work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` returns; a defect there is raised as one of another process would be."""
    with blame(NodeError, "it failed"):
        return await work


class _Method:
    def __init__(self, actor: _LocalActor, name: str) -> None:
        self._actor = actor
        self._name = name

    def remote(self, *arguments: Any) -> "_Call":
        """Begin the call."""
        return self._actor._begin(self._name, arguments)


class _Call:
    """The answer of a call, which goes on when nobody waits for it any longer."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():
                raise RayError("the actor was ended") from None
            raise
