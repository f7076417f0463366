"""What plugins did to a trajectory or a run, for people: what they changed, added, found, decided and failed at."""

import json
from typing import TYPE_CHECKING, Any

from realwork.cli.console import number
from realwork.text import shorten
from realwork.types import Trajectory

if TYPE_CHECKING:
    from realwork.analysis.plugin_use import PluginStats

_LONGEST = 1000
_MOST = 20
_CHANGING = ("blocked", "rewritten")
_QUIET_ANALYZER = "trajectory_analyzer"
"""Its findings are in every row, and in `stats`; only what it suggests is news."""


def plugin_notes(trajectory: Trajectory) -> list[str]:
    """A line for each thing of note that a plugin said or did; none for those that only looked on."""
    rewards = ", ".join(f"{each.name} {number(each.value)}" for each in trajectory.rewards)
    lines = [f"rewards: {rewards}"] if len(trajectory.rewards) > 1 else []
    for name, said in _said(trajectory).items():
        lines += [f"{name}: {line}" for line in _lines(name, said)]
    return lines


def reward_by(trajectory: Trajectory) -> str | None:
    """Whose the reward is and what the tests' own was, null if it is theirs."""
    for name, said in _said(trajectory).items():
        if "replaced_reward" in said:
            return f"by {name}; the tests' own {number(said['replaced_reward'])}"
    return None


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


def _said(trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    data: dict[str, Any] = json.loads(trajectory.plugin_data)
    return {name: said for name, said in data.items() if isinstance(said, dict)}


def _lines(name: str, said: dict[str, Any]) -> list[str]:
    lines = []
    if "replaced_reward" in said:
        lines.append(f"replaced the reward of the tests, {number(said['replaced_reward'])}")
    lines += [f"changed {field}: {_json(value)}" for field, value in said.get("changed", {}).items()]
    if said.get("analysis") and name != _QUIET_ANALYZER:
        lines.append(f"found {_json(said['analysis'])}")
    lines += [f"suggests: {_text(each)}" for each in said.get("suggestions") or ()]
    if said.get("error") and not said.get("calls", 1):
        lines.append(f"failed: {said['error']}")
    elif said.get("error"):
        lines.append(f"failed {said.get('errors', 1)} of {said.get('calls', 1)} times: {said['error']}")
    return lines


def _json(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _LONGEST)


def _text(value: Any) -> str:
    return shorten(value if isinstance(value, str) else _json(value), _LONGEST)
