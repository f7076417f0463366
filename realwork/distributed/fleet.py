"""The slots of a run, node by node: those in which a rollout is played, and those that wait for one."""

from collections import defaultdict, deque
from collections.abc import Callable

from realwork.distributed.slot import Slot
from realwork.schedule import Placement


class Fleet:
    """Slots made by `make`, called with the id of the node that they are to be on."""

    def __init__(self, placement: Placement, make: Callable[[str], Slot]) -> None:
        self._placement = placement
        self._make = make
        self._idle: defaultdict[str, deque[Slot]] = defaultdict(deque)
        self._busy: set[Slot] = set()

    def begin(self, count: int) -> None:
        """Have the processes of so many slots started, spread over the nodes, each when it is its turn there."""
        room = {place.node_id: place.room for place in self._placement.places(0.0)}
        while count > 0 and room:
            for node_id in list(room)[:count]:
                slot = self._make(node_id)
                slot.begin()
                self._idle[node_id].append(slot)
                room[node_id] -= 1
                if not room[node_id]:
                    del room[node_id]
                count -= 1
        for node_id in self._idle:
            self._placement.set_idle(node_id, len(self._idle[node_id]))

    def take(self, node_id: str) -> Slot:
        """A slot on a node, for one rollout: one that has played, else the one that starts first."""
        idle = self._idle[node_id]
        slot = idle.popleft() if idle else self._make(node_id)
        self._placement.set_idle(node_id, len(idle))
        self._busy.add(slot)
        return slot

    def give_back(self, slot: Slot, *, is_needed: bool) -> None:
        """Let a slot wait for the next rollout, or end it when it is not needed or its node is gone."""
        self._busy.discard(slot)
        if not is_needed or slot.is_cut or slot.node_id not in self._placement:
            slot.kill()
            return
        self._idle[slot.node_id].appendleft(slot)
        self._placement.set_idle(slot.node_id, len(self._idle[slot.node_id]))

    def end_idle(self) -> None:
        """End the slots that wait."""
        for node_id, idle in self._idle.items():
            for slot in idle:
                slot.kill()
            self._placement.set_idle(node_id, 0)
        self._idle.clear()

    def stop(self) -> None:
        """Cut what is being played."""
        for slot in self._busy:
            slot.stop()

    def cut(self) -> None:
        """Kill what was stopped and still goes on."""
        for slot in self._busy:
            slot.cut()

    def kill(self) -> None:
        """End every process."""
        self.end_idle()
        for slot in self._busy:
            slot.kill()
