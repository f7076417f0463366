"""The points of a rollout at which plugins answer, as the rollout sees them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from realwork.config import EnvironmentConfig, RunConfig
from realwork.plugins.builtin import BUILTIN, all_entries
from realwork.types import Action, Observation, Record, Trajectory

Refuse = Callable[[EnvironmentConfig], str | None]
"""Why a rollout cannot be played with a changed environment, null if it can."""
START_S = 60.0
"""Seconds within which the process of a call must have started, which is not of the plugin's own time."""
LONGEST_CHAIN = 3
"""How many times the longest timeout the modifiers of an environment may take together."""
_PHASES_AFTER = 4
"""So many times the longest timeout may plugins take after an episode: those that have watched it, evaluators,
analyzers, and those that watch its end."""


class Verdict(Record):
    """What becomes of one action: the action to carry out, and who decided so.

    Attributes:
        decision: "allowed", "blocked by NAME: reason" or "rewritten by NAME"; it stands in the observation's row.
    """

    action: Action
    decision: str = "allowed"


class Hooks(Protocol):
    """Plugins of one rollout. No method raises but for a plugin that is configured as critical (`PluginError`).

    Attributes:
        modified_by: names of the plugins that have changed the environment.
    """

    modified_by: Sequence[str]

    async def modify(self, environment: EnvironmentConfig, refuse: Refuse) -> EnvironmentConfig:
        """The environment that the rollout runs with; none that `refuse` has something against."""

    async def review(self, actions: Sequence[Action]) -> list[Verdict]:
        """One verdict for each of `actions`, in order. Called once for each reply."""

    def acted(self, action: Action, observation: Observation) -> None:
        """Told that `action` was carried out; nothing is waited for."""

    def testing(self) -> None:
        """Told that the tests begin; nothing is waited for."""

    async def evaluate(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory`, which has ended, with what evaluators (when it is graded) and analyzers add to it."""

    async def settle(self) -> None:
        """Wait, within their time, for those who were told of something."""

    def close(self) -> None:
        """End the calls of those who were told of something; nothing is waited for."""

    def annotate(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory` with what the plugins have said so far."""


class NoHooks:
    """The hooks of a rollout without plugins."""

    modified_by: Sequence[str] = ()

    async def modify(self, environment: EnvironmentConfig, refuse: Refuse) -> EnvironmentConfig:
        return environment

    async def review(self, actions: Sequence[Action]) -> list[Verdict]:
        return [Verdict(action=action) for action in actions]

    def acted(self, action: Action, observation: Observation) -> None:
        return None

    def testing(self) -> None:
        return None

    async def evaluate(self, trajectory: Trajectory) -> Trajectory:
        return trajectory

    async def settle(self) -> None:
        return None

    def close(self) -> None:
        return None

    def annotate(self, trajectory: Trajectory) -> Trajectory:
        return trajectory


def longest_hooks_s(config: RunConfig) -> float:
    """Seconds that plugins may take before and after an episode; what they take within it is of its own time."""
    entries = all_entries(config)
    longest_s = max((entry.timeout for entry in entries), default=0.0)
    start_s = 0.0 if all(entry.module in BUILTIN for entry in entries) else START_S
    return (LONGEST_CHAIN + _PHASES_AFTER) * longest_s + (1 + _PHASES_AFTER) * start_s
