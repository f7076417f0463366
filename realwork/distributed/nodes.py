"""The nodes of a cluster that can play rollouts: examined before the run, and watched while it goes on.

Guarantees: a node gets no rollout before it has answered that it can play one; images are pulled on at most `PULLS`
nodes at once; what can never fit is refused before anything is started.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from realwork.distributed.cluster import Node
from realwork.distributed.members import Members
from realwork.errors import InputError, NodeError
from realwork.preflight import MachineFacts, Question, complete
from realwork.record import RolloutSettings
from realwork.schedule import Placement
from realwork.types import Record

log = logging.getLogger(__name__)
LOOK_EVERY_S = 2.0
EXAMINE_S = 120.0
PULL_S = 3600.0
PULLS = 4
AGAIN_AFTER_S = 30.0
LONGEST_AGAIN_S = 600.0
DEMAND_EVERY_S = 10.0
SWEEP_S = 30.0
URGENT_SWEEP_S = 5.0
MAX_TOLD = 20


class Examined(Record):
    """A node and what it has answered.

    Attributes:
        room: rollouts that fit on it at once; 0 if it cannot play any.
    """

    node: Node
    facts: MachineFacts
    room: int

    @property
    def sentence(self) -> str:
        """What there is to know of it, in a line."""
        facts = self.facts
        if facts.problems:
            return f"node {self.node.name} plays no rollouts: {facts.problems[0]}"
        if facts.missing_images:
            return f"node {self.node.name} has to pull {', '.join(facts.missing_images)}"
        disk = f", {facts.free_disk_mib >> 10} GiB of disk free" if facts.free_disk_mib is not None else ""
        engine = f"; engine {facts.engine}" if facts.engine else ""
        return f"node {self.node.name}: {_rollouts(self.room)} in {self.node.memory_mib} MiB of memory{disk}{engine}"


class Nodes:
    """The nodes of a run, each asked `question`, of whose rollouts each reserves `memory_mib`.

    Args:
        members: the cluster, whose nodes come and go while the run goes on; null where nodes neither do nor are asked.

    Attributes:
        found: those that were there before the run, whatever they have answered.
    """

    def __init__(self, question: Question, memory_mib: int, members: Members | None) -> None:
        self._question = question
        self._memory_mib = memory_mib
        self._members = members
        self._pulls = asyncio.Semaphore(PULLS)
        self._known: dict[str, Node] = {}
        self._missed: set[str] = set()
        self._again: dict[str, tuple[float, float]] = {}
        self._welcoming: dict[str, asyncio.Task[None]] = {}
        self._demanded = 0
        self._demanded_at = 0.0
        self.found: list[Examined] = []

    def begin_with(self, found: Sequence[Node]) -> None:
        """Ask each of the nodes, side by side; where none has the images, pull them until one has. Blocks.

        Nodes of no cluster are known to be able to play.

        Raises:
            InputError: none of them can play a rollout, with what each has said.
        """
        if self._members is None:
            self.found = [self._examined(node, MachineFacts()) for node in found]
        else:
            self.found = complete(self._answers(self._members, found))
        self._check_room()

    async def _answers(self, members: Members, found: Sequence[Node]) -> list[Examined]:
        answers = await asyncio.gather(*(self._ask(members, node) for node in found))
        waiting = [each.node for each in answers if each.facts.missing_images]
        if any(_is_ready(each) for each in answers):
            return answers
        pulled = {each.node.node_id: each for each in await self._pull(members, waiting)}
        return [pulled.get(each.node.node_id, each) for each in answers]

    def _check_room(self) -> None:
        if any(_is_ready(each) and each.room for each in self.found):
            return
        problems = [
            f"node {each.node.name}: {problem}"
            for each in self.found
            for problem in each.facts.problems or (self._too_small(each.node),)
        ]
        raise InputError("no node can play a rollout", problems=problems[:MAX_TOLD])

    def _too_small(self, node: Node) -> str:
        return (
            f"one rollout needs {self._memory_mib} MiB of memory, its sandbox_config.memory_mib and its process, but "
            f"Ray has {node.memory_mib} MiB there to give. Lower memory_mib, or add a larger node."
        )

    async def _pull(self, members: Members, found: Sequence[Node]) -> list[Examined]:
        """What the nodes answer that have pulled the images, a few at a time, up to the first that can play."""
        answers: list[Examined] = []
        for first in range(0, len(found), PULLS):
            few = found[first : first + PULLS]
            answers += await asyncio.gather(*(self._ask(members, node, pulls=True) for node in few))
            if any(_is_ready(each) for each in answers):
                break
        return answers

    async def _ask(self, members: Members, node: Node, *, pulls: bool = False) -> Examined:
        question = self._question.model_copy(update={"pulls": pulls})
        return self._examined(node, await members.ask(node, question, PULL_S if pulls else EXAMINE_S))

    def _examined(self, node: Node, facts: MachineFacts) -> Examined:
        room = 0 if facts.problems or facts.missing_images else node.memory_mib // self._memory_mib
        return Examined(node=node, facts=facts, room=room)

    def place(self, placement: Placement) -> None:
        """Let the nodes that can play now take part."""
        for each in self.found:
            self._known[each.node.node_id] = each.node
            if each.room:
                placement.set_node(each.node.node_id, each.node.name, each.room)

    async def watch(
        self,
        placement: Placement,
        *,
        on_change: Callable[[], None],
        note: Callable[[str], None],
        left: Callable[[], int],
    ) -> None:
        """Take nodes that join, let go of those that leave, and tell the autoscaler what is wanted; until cancelled."""
        members = self._members
        if members is None:
            return
        for each in self.found:
            if not each.room:
                self._again[each.node.node_id] = (0.0 if each.facts.missing_images else AGAIN_AFTER_S, AGAIN_AFTER_S)
        await members.request(self._memory_mib, 0)  # what a run has left that was killed
        try:
            while True:
                await self._look(members, placement, on_change, note)
                await self._demand(members, placement, left())
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self._welcoming.values():
                task.cancel()
            if self._demanded:
                await members.request(self._memory_mib, 0)

    def cpus(self, node_id: str) -> float:
        """The CPUs that Ray may give away of a node; 0 of one that is gone."""
        node = self._known.get(node_id)
        return node.cpus if node is not None else 0.0

    async def doubt(self, node_id: str, placement: Placement, note: Callable[[str], None]) -> None:
        """Let go of a node on which a process was lost if it is gone, so that nothing is started there any more."""
        if self._members is None or node_id not in self._known:
            return
        with contextlib.suppress(NodeError):
            alive = await self._members.alive()
            if alive and node_id in self._known and all(node.node_id != node_id for node in alive):
                self._let_go(node_id, placement, note)

    def _let_go(self, node_id: str, placement: Placement, note: Callable[[str], None]) -> None:
        note(f"node {self._known.pop(node_id).name} is gone; what was in flight there is run again elsewhere")
        self._again.pop(node_id, None)
        placement.remove(node_id)

    async def sweep(self, settings: RolloutSettings, run_id: str, *, is_urgent: bool) -> None:
        """Remove what the run has left on the engines of other nodes, as far as they answer soon."""
        if self._members is not None and settings.config.sandbox_config.kind == "docker":
            calls = [self._members.sweep(node_id, run_id, settings.driver) for node_id in self._known]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(URGENT_SWEEP_S if is_urgent else SWEEP_S):
                    await asyncio.gather(*calls, return_exceptions=True)

    async def _look(
        self, members: Members, placement: Placement, on_change: Callable[[], None], note: Callable[[str], None]
    ) -> None:
        try:
            alive = {node.node_id: node for node in await members.alive()}
        except NodeError as error:
            log.warning("%s", error)
            return
        missing = self._known.keys() - alive.keys()
        for node_id in missing & self._missed:  # twice in a row: the control service may just have been restarted
            self._let_go(node_id, placement, note)
            on_change()
        self._missed = set(missing)
        now = time.monotonic()
        for node_id, node in alive.items():
            is_new = node_id not in self._known
            is_due = node_id in self._again and self._again[node_id][0] <= now
            if (is_new or is_due) and node_id not in self._welcoming:
                self._known[node_id] = node
                task = asyncio.create_task(self._welcome(members, node, placement, on_change, note))
                self._welcoming[node_id] = task
                task.add_done_callback(partial(self._welcomed, node_id))

    def _welcomed(self, node_id: str, _task: asyncio.Task[None]) -> None:
        self._welcoming.pop(node_id, None)

    async def _welcome(
        self,
        members: Members,
        node: Node,
        placement: Placement,
        on_change: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        """Examine a node, pull what it lacks, and let it take part; or look at it again later."""
        examined = await self._ask(members, node)
        if examined.facts.missing_images:
            async with self._pulls:
                examined = await self._ask(members, node, pulls=True)
        if node.node_id not in self._known:
            return
        _, pause_s = self._again.pop(node.node_id, (0.0, 0.0))
        if not pause_s or examined.room:
            note(examined.sentence)
        if examined.room:
            placement.set_node(node.node_id, node.name, examined.room)
            on_change()
        else:
            pause_s = min(LONGEST_AGAIN_S, 2 * pause_s or AGAIN_AFTER_S)
            self._again[node.node_id] = (time.monotonic() + pause_s, pause_s)

    async def _demand(self, members: Members, placement: Placement, left: int) -> None:
        """Tell the autoscaler how many rollouts want a place, if there is not place for all, until there is no need."""
        wanted = min(placement.share, left)
        demanded = wanted if wanted > placement.room or self._demanded else 0
        if demanded == self._demanded or time.monotonic() < self._demanded_at + DEMAND_EVERY_S:
            return
        self._demanded, self._demanded_at = demanded, time.monotonic()
        unusable = sum(self._known[node_id].memory_mib // self._memory_mib for node_id in self._again)
        await members.request(self._memory_mib, demanded + unusable if demanded else 0)


def _is_ready(examined: Examined) -> bool:
    return not examined.facts.problems and not examined.facts.missing_images


def _rollouts(count: int) -> str:
    return "1 rollout fits" if count == 1 else f"{count} rollouts fit"
