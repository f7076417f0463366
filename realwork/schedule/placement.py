"""On which node a rollout is played: which have room, which have its image, which rest.

Pure: the time is told. Guarantees: no node gets more rollouts than it has room for; a node that failed `PATIENCE`
rollouts in a row for reasons of its own rests, and is then tried again, each time after a longer rest if it fails
again.
"""

from realwork.types import Record

PATIENCE = 3
FIRST_REST_S = 10.0
LONGEST_REST_S = 120.0
MOST_RESTS = 6
"""If every node has rested so often and none has done better, there is no hope: that is after five minutes."""
NO_IMAGE = 0.5
"""How much fuller a node may be that has the image than one that has to fetch it."""
NO_PROCESS = 0.25
"""Likewise for one in which a process waits."""
SUSPECT = 1.0
"""Likewise for the node on which the attempt before failed, or which failed the last rollout."""


class Place(Record):
    """How a node stands.

    Attributes:
        room: rollouts that fit on it.
        used: rollouts that are on it.
        failures: rollouts in a row that failed there for reasons of the node's own.
        rests_s: seconds until it is tried again; 0 when it does not rest.
    """

    node_id: str
    name: str
    room: int
    used: int = 0
    failures: int = 0
    rests_s: float = 0.0


class _Node:
    def __init__(self, node_id: str, name: str, room: int) -> None:
        self.node_id = node_id
        self.name = name
        self.room = room
        self.used = self.idle = self.failures = self.rests = 0
        self.rests_until = self.rest_s = 0.0
        self.environments: set[str] = set()
        self.failing: set[str] = set()


class Placement:
    """The nodes that can play rollouts, `share` of which are wanted at once."""

    def __init__(self, share: int) -> None:
        self.share = share
        self._nodes: dict[str, _Node] = {}

    def set_node(self, node_id: str, name: str, room: int) -> None:
        """A node is there that has room for so many rollouts."""
        node = self._nodes.setdefault(node_id, _Node(node_id, name, room))
        node.name, node.room = name, room

    def remove(self, node_id: str) -> None:
        """A node is gone; what was on it need not be released."""
        self._nodes.pop(node_id, None)

    @property
    def room(self) -> int:
        """Rollouts that all nodes together hold."""
        return sum(node.room for node in self._nodes.values())

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes

    def has_room(self, now: float) -> bool:
        """Whether `choose` finds a node."""
        return bool(self._candidates(now))

    def choose(
        self, environment_id: str, now: float, *, prefers: str | None = None, avoids: str | None = None
    ) -> str | None:
        """The node for the next rollout of an environment, null when none has room.

        Args:
            prefers: the node that has what the rollout goes on from.
            avoids: the node on which its last attempt failed.
        """
        candidates = self._candidates(now)
        if any(node.node_id == prefers and node.failures <= 1 for node in candidates):
            return prefers
        fair = self.share / max(1, self.room)

        def cost(node: _Node) -> float:
            load = node.used / max(1.0, min(node.room, node.room * fair))
            missing = NO_IMAGE * (environment_id not in node.environments)
            suspect = SUSPECT * (bool(node.failures) + (node.node_id == avoids))
            return load + missing + NO_PROCESS * (not node.idle) + suspect

        return min(candidates, key=cost).node_id if candidates else None

    def _candidates(self, now: float) -> list[_Node]:
        return [node for node in self._nodes.values() if node.used < node.room and node.rests_until <= now]

    def take(self, node_id: str) -> None:
        """A rollout begins on a node."""
        self._nodes[node_id].used += 1

    def release(self, node_id: str) -> None:
        """A rollout on a node has ended."""
        if (node := self._nodes.get(node_id)) is not None:
            node.used -= 1

    def set_idle(self, node_id: str, count: int) -> None:
        """So many processes wait on a node for a rollout."""
        if (node := self._nodes.get(node_id)) is not None:
            node.idle = count

    def note_image(self, node_id: str, environment_id: str) -> None:
        """A node has what the environment's sandboxes are made of."""
        if (node := self._nodes.get(node_id)) is not None:
            node.environments.add(environment_id)

    def with_image(self, environment_id: str) -> list[str]:
        """The nodes that have what the environment's sandboxes are made of."""
        return [node.node_id for node in self._nodes.values() if environment_id in node.environments]

    def note_success(self, node_id: str) -> None:
        """A rollout on a node was graded."""
        if (node := self._nodes.get(node_id)) is not None:
            node.failures, node.rests, node.rest_s = 0, 0, 0.0
            node.failing.clear()

    def note_failure(self, node_id: str, now: float, environment_id: str, *, is_sound: bool) -> float:
        """A rollout failed on a node; the seconds for which that rests from now on, mostly 0.

        The environment is at fault, and not the node, unless it `is_sound`, or others have failed there, too.
        """
        node = self._nodes.get(node_id)
        if node is None:
            return 0.0
        node.failures += 1
        node.failing.add(environment_id)
        is_at_fault = is_sound or len(node.failing) > 1
        if node.failures < PATIENCE or node.rests_until > now or not is_at_fault:
            return 0.0
        node.rest_s = min(LONGEST_REST_S, 2 * node.rest_s or FIRST_REST_S)
        node.rests_until = now + node.rest_s
        node.rests += 1
        node.environments.clear()  # an engine that came back may have lost them
        return node.rest_s

    @property
    def is_hopeless(self) -> bool:
        """Whether every node there is has failed again and again."""
        return bool(self._nodes) and all(node.rests > MOST_RESTS for node in self._nodes.values())

    def places(self, now: float) -> list[Place]:
        """How each node stands."""
        return [
            Place(
                node_id=node.node_id,
                name=node.name,
                room=node.room,
                used=node.used,
                failures=node.failures,
                rests_s=max(0.0, node.rests_until - now),
            )
            for node in self._nodes.values()
        ]
