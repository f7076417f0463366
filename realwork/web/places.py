"""Texts on the page of an attempt, and the place under which the whole of each is found. Pure."""

import json
from typing import Any

from realwork.analysis.plugins_said import plugins_said
from realwork.dataset.rows import Row, trajectory
from realwork.web.rollout_views import Text
from realwork.web.text import Excerpt, excerpt


def text_at(content: str | None, at: str, language: str = "") -> Text | None:
    """`content` as the page shows it first; null if there is none."""
    return Text(**Excerpt._asdict(excerpt(content)), at=at, language=language) if content else None


def whole_text(row: Row, at: str) -> str | None:
    """The whole text in a place that a `Text` names, null if there is none."""
    name, *rest = at.split(".")
    try:
        return _found(row, name, [int(number) for number in rest])
    except (IndexError, ValueError, TypeError, KeyError):
        return None


def _found(row: Row, name: str, place: list[int]) -> str | None:
    found: Any = None
    match name, place:
        case (("content" | "reasoning"), [message]):
            found = row["messages"][message]["content" if name == "content" else "reasoning_content"]
        case "arguments", [message, call]:
            found = row["messages"][message]["tool_calls"][call]["function"]["arguments"]
        case "argument", [message, call, number]:
            arguments = row["messages"][message]["tool_calls"][call]["function"]["arguments"]
            found = as_text([*json.loads(arguments).values()][number])
        case (("output" | "stderr"), [step, call]):
            found = row["steps"][step]["tool_results"][call][name]
        case (("test_command" | "test_output" | "test_stderr"), [test]):
            found = row["test_results"][test][name]
        case (("environment" | "metadata" | "sampling_params" | "tools"), []):
            found = pretty(row[name])
        case "plugin", [plugin]:
            found = plugins_said(trajectory(row))[plugin].whole
        case "diff", []:
            found = row["final_diff"]
        case "error", []:
            found = row["error_message"]
    return found if isinstance(found, str) else None


def as_text(value: Any) -> str:
    """A value of JSON as text: a string is one already."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def pretty(content: str) -> str:
    """JSON in lines; what is none stays as it is."""
    try:
        return json.dumps(json.loads(content), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return content
