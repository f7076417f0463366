"""The nodes that a cluster has, as they are asked for by a run.

Guarantees: what gives no answer in time is an answer of its own.
"""

import asyncio
import contextlib
from typing import Protocol

from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from realwork.distributed.answers import answer
from realwork.distributed.cluster import Node, nodes, on_node
from realwork.errors import NodeError, RealworkError
from realwork.preflight import MachineFacts, Question, examine
from realwork.sweeping import sweep_here

REQUEST_S = 5.0


class Members(Protocol):
    """The nodes of a cluster, which come and go."""

    async def alive(self) -> list[Node]:
        """Those that are there now.

        Raises:
            NodeError: the cluster does not tell.
        """

    async def ask(self, node: Node, question: Question, within_s: float) -> MachineFacts:
        """What a node answers within so many seconds; that it gave no answer is a problem in it."""

    async def request(self, memory_mib: int, count: int) -> None:
        """Let the autoscaler make room for `count` times so much, over all nodes, in place of what it was told before.

        Nothing is raised when it does not hear.
        """

    async def sweep(self, node_id: str, run_id: str, driver: str) -> None:
        """Remove what a run has left on the engine of a node; see `sweep_here`.

        Raises:
            RayError: the node is gone.
        """


class RayMembers:
    """The nodes of the Ray cluster that this process has joined; see `Members`."""

    async def alive(self) -> list[Node]:
        try:
            return await asyncio.to_thread(nodes)
        except (RayError, RuntimeError, OSError) as error:
            raise NodeError(f"The cluster does not tell its nodes: {error}") from error

    async def ask(self, node: Node, question: Question, within_s: float) -> MachineFacts:
        try:
            async with asyncio.timeout(within_s):
                facts: MachineFacts = await answer(on_node(node.node_id, examine, question))
        except (RayError, RealworkError, TimeoutError) as error:
            said = str(error).strip().splitlines() or ["it gave no answer in time"]
            return MachineFacts(problems=(f"it could not be examined: {said[-1]}",))
        return facts

    async def request(self, memory_mib: int, count: int) -> None:
        bundles = [{"memory": memory_mib << 20}] * count
        with contextlib.suppress(RayError, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(REQUEST_S):
                await asyncio.to_thread(request_resources, bundles=bundles)

    async def sweep(self, node_id: str, run_id: str, driver: str) -> None:
        await answer(on_node(node_id, sweep_here, run_id, driver))
