"""What plugins said of a trajectory: the findings among it, and whose the reward is. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from realwork.text import shorten
from realwork.types import Record, Trajectory

_LONGEST = 1000
_QUIET_ANALYZER = "trajectory_analyzer"
"""Its findings are in every row, and in `stats`; only what it suggests is news."""


class PluginSaid(Record):
    """What one plugin said.

    Attributes:
        findings: a line for each thing of note; none if it only looked on.
        has_replaced_reward: whether the reward of the trajectory is its own.
        tests_reward: the reward that it replaced.
        whole: all of it, as JSON.
    """

    name: str
    findings: list[str]
    has_replaced_reward: bool = False
    tests_reward: float | None = None
    whole: str


def plugins_said(trajectory: Trajectory) -> list[PluginSaid]:
    """What each plugin said of `trajectory`, in the order in which they were asked."""
    data: dict[str, Any] = json.loads(trajectory.plugin_data)
    return [_said(name, said) for name, said in data.items()]


def replaced_by(trajectory: Trajectory) -> PluginSaid | None:
    """The plugin whose reward stands for that of the tests, null if the tests' own does."""
    return next((said for said in plugins_said(trajectory) if said.has_replaced_reward), None)


def _said(name: str, said: Any) -> PluginSaid:
    whole = json.dumps(said, ensure_ascii=False, indent=2)
    if not isinstance(said, dict):
        return PluginSaid(name=name, findings=[], whole=whole)
    return PluginSaid(
        name=name,
        findings=[*_findings(name, said)],
        has_replaced_reward="replaced_reward" in said,
        tests_reward=said.get("replaced_reward"),
        whole=whole,
    )


def _findings(name: str, said: dict[str, Any]) -> Iterator[str]:
    if "replaced_reward" in said:
        yield f"replaced the reward of the tests, {said['replaced_reward']:.2f}"
    for field, value in said.get("changed", {}).items():
        yield f"changed {field}: {_json(value)}"
    if said.get("analysis") and name != _QUIET_ANALYZER:
        yield f"found {_json(said['analysis'])}"
    for suggestion in said.get("suggestions") or ():
        yield f"suggests: {_text(suggestion)}"
    if said.get("error") and not said.get("calls", 1):
        yield f"failed: {said['error']}"
    elif said.get("error"):
        yield f"failed {said.get('errors', 1)} of {said.get('calls', 1)} times: {said['error']}"


def _json(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _LONGEST)


def _text(value: Any) -> str:
    return shorten(value if isinstance(value, str) else _json(value), _LONGEST)
