"""What plugins did to a trajectory or a run, for people: what they changed, added, found, decided and failed at."""

from typing import TYPE_CHECKING

from realwork.analysis.plugins_said import plugins_said
from realwork.cli.console import number
from realwork.types import Trajectory

if TYPE_CHECKING:
    from realwork.analysis.plugin_use import PluginStats

_MOST = 20
_CHANGING = ("blocked", "rewritten")


def plugin_notes(trajectory: Trajectory) -> list[str]:
    """A line for each thing of note that a plugin said or did; none for those that only looked on."""
    rewards = ", ".join(f"{each.name} {number(each.value)}" for each in trajectory.rewards)
    lines = [f"rewards: {rewards}"] if len(trajectory.rewards) > 1 else []
    return lines + [f"{said.name}: {line}" for said in plugins_said(trajectory) for line in said.findings]


def decisions(trajectory: Trajectory) -> dict[str, str]:
    """What plugins decided of the tool calls that did not run as the model wrote them, by the ids of the calls."""
    observations = [observation for step in trajectory.steps for observation in step.observations]
    return {each.call_id: each.decision for each in observations if each.decision.startswith(_CHANGING)}


def manager_notes(use: "PluginStats") -> list[str]:
    """What a plugin decided between rollouts, a few words for each environment."""
    notes = [f"stopped {name} after {_episodes(count)}" for name, count in use.stopped.items()]
    notes += [
        f"set {field} {value:g} for {name}" for name, fields in use.strategy.items() for field, value in fields.items()
    ]
    return notes[:_MOST] + ([f"{len(notes) - _MOST} decisions more"] if len(notes) > _MOST else [])


def _episodes(count: int) -> str:
    return "1 episode" if count == 1 else f"{count} episodes"
