"""The points of a rollout at which plugins answer, as the rollout sees them."""

from collections.abc import Sequence
from typing import Protocol

from realwork.config import EnvironmentConfig
from realwork.types import Action, Record, Trajectory


class Verdict(Record):
    """What becomes of one action: the action to carry out, and who decided so.

    Attributes:
        decision: "allowed", "blocked by NAME: reason" or "rewritten by NAME"; it stands in the observation's row.
    """

    action: Action
    decision: str = "allowed"


class Hooks(Protocol):
    """Plugins of one rollout. No method raises but for a plugin that is configured as critical (`PluginError`)."""

    async def modify(self, environment: EnvironmentConfig) -> EnvironmentConfig:
        """The environment that the rollout runs with."""

    async def review(self, actions: Sequence[Action]) -> list[Verdict]:
        """One verdict for each of `actions`, in order."""

    async def evaluate(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory`, graded, with what evaluators and analyzers add to it."""


class NoHooks:
    """The hooks of a rollout without plugins."""

    async def modify(self, environment: EnvironmentConfig) -> EnvironmentConfig:
        return environment

    async def review(self, actions: Sequence[Action]) -> list[Verdict]:
        return [Verdict(action=action) for action in actions]

    async def evaluate(self, trajectory: Trajectory) -> Trajectory:
        return trajectory
