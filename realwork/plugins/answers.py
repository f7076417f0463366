"""What plugins may answer, and the check of it, where the plugin ran.

Guarantees: an `Answer` is made of plain values; nothing of a plugin's own types leaves its process but `state`, which
only its next call opens.
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from numbers import Real
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from realwork.config import EnvironmentConfig
from realwork.errors import PluginError
from realwork.fields import LARGEST_COUNT
from realwork.plugins.base import (
    ActionFilterPlugin,
    BasePlugin,
    EnvironmentModifierPlugin,
    EpisodeEvaluatorPlugin,
    PluginContext,
    PluginHookType,
    RolloutManagerPlugin,
    TrajectoryAnalyzerPlugin,
)
from realwork.plugins.told import HookCall
from realwork.text import shorten, valid_text
from realwork.types import Action, Record

LARGEST_ANSWER_BYTES = 1 << 20
LONGEST_REASON = 1000
_ACTION: TypeAdapter[Action] = TypeAdapter(Action)

State = Mapping[str, bytes]
"""What a plugin keeps for its next call: each value pickled, so that only that call opens it."""


class Filtered(Record):
    """What a filter made of one action: the action to carry out, or null and why it was left out."""

    action: Action | None
    reason: str = ""


class Strategy(Record):
    """What a manager wants of the next rollouts; null changes nothing."""

    timeout_multiplier: float | None = Field(default=None, ge=0.01, le=100, allow_inf_nan=False)
    max_retries: int | None = Field(default=None, ge=0, le=LARGEST_COUNT)


class Answer(Record):
    """What came of one call; one field is set beside `state`, by the kind of plugin, or `error`.

    Attributes:
        data: JSON text of what an analyzer found.
        rewards: an evaluator's named rewards, in its order.
        state: those of the context's keys of the plugin's own that are new or changed, each pickled.
        lost: whether the process ended or gave no answer in time, so that a further call would cost as much.
    """

    filtered: tuple[Filtered, ...] | None = None
    environment: EnvironmentConfig | None = None
    data: str | None = None
    rewards: tuple[tuple[str, float], ...] | None = None
    go_on: bool = True
    strategy: Strategy | None = None
    state: dict[str, bytes] = {}
    error: str | None = None
    lost: bool = False


def check_size(answer: Answer, call: HookCall) -> None:
    """Make sure that `answer` can travel and stand in a row: it may be so much larger than what it changes.

    Raises:
        PluginError: it is too large.
    """
    size = len(pickle.dumps(answer))
    if size <= LARGEST_ANSWER_BYTES:
        return
    if size > LARGEST_ANSWER_BYTES + len(pickle.dumps((call.actions, call.environment))):
        raise PluginError(f"it answered with more than {LARGEST_ANSWER_BYTES >> 20} MiB")


class UnclearError(PluginError):
    """A filter's answer does not say which of the given actions became what."""


def checked(plugin: BasePlugin, call: HookCall, context: PluginContext) -> Answer:
    """What `plugin` has left in `context`.

    Raises:
        UnclearError: it does not say what becomes of each action.
        PluginError: it is none of what `call` asks for.
    """
    match plugin, call.hook:
        case ActionFilterPlugin(), PluginHookType.PRE_ACTION:
            return Answer(filtered=_filtered(plugin, call.actions or (), context.get("actions")))
        case EnvironmentModifierPlugin(), PluginHookType.PRE_EPISODE if call.environment is not None:
            return Answer(environment=_environment(call.environment, context.get("environment_config")))
        case EpisodeEvaluatorPlugin(), PluginHookType.POST_TEST:
            return Answer(rewards=_rewards(context.get("evaluation")))
        case TrajectoryAnalyzerPlugin(), PluginHookType.POST_EPISODE:
            suggestions = _suggestions(context.get("suggestions", []))
            return Answer(data=_json({"analysis": context.get("analysis"), "suggestions": suggestions}))
        case RolloutManagerPlugin(), PluginHookType.POST_EPISODE if call.results is not None:
            return _decision(context)
    return Answer()


def _filtered(plugin: ActionFilterPlugin, given: Sequence[Action], answered: Any) -> tuple[Filtered, ...]:
    if not isinstance(answered, list | tuple):
        raise PluginError(f"it must answer with a list of actions, not {_kind(answered)}")
    kept = [_action(action) for action in answered]
    result: list[Filtered] = []
    for what, begin, end, first, last in SequenceMatcher(None, given, kept, autojunk=False).get_opcodes():
        if what == "equal" or (what == "replace" and end - begin == last - first):
            result += [Filtered(action=action) for action in kept[first:last]]
        elif what == "delete":
            result += [
                Filtered(action=None, reason=valid_text(shorten(str(plugin.block_reason(action)), LONGEST_REASON)))
                for action in given[begin:end]
            ]
        else:
            raise UnclearError("it answered with actions that are not the given ones, nor as many")
    return tuple(result)


def _action(answered: Any) -> Action:
    """A plain action of the tree, checked as if it were new: a copy with changes is not checked by itself."""
    if not isinstance(answered, BaseModel | dict):
        raise PluginError(f"it must answer with a list of actions, not with {_kind(answered)} in it")
    with _plainly("an action that it answered with is wrong"):
        action: Action = _ACTION.validate_python(_fields(answered))
    for name, value in action.model_dump().items():
        if isinstance(value, str) and value != valid_text(value):
            raise PluginError(f"the {name} of an action must be valid text without NUL characters")
    return action


def _kind(answered: object) -> str:
    return "None" if answered is None else type(answered).__name__


@contextmanager
def _plainly(wrong: str) -> Iterator[None]:
    """Says of the first mistake that pydantic finds what stands for the user, in one sentence."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise PluginError(f"{wrong}: {place}: {said}" if place else f"{wrong}: {said}") from None


def _fields(value: Any) -> Any:
    """Records as dictionaries of their fields, whatever these hold."""
    match value:
        case BaseModel():
            return {name: _fields(getattr(value, name)) for name in type(value).model_fields}
        case list() | tuple():
            return [_fields(each) for each in value]
        case dict():
            return {name: _fields(each) for name, each in value.items()}
    return value


def _environment(given: EnvironmentConfig, answered: Any) -> EnvironmentConfig:
    if not isinstance(answered, BaseModel | dict):
        raise PluginError(f"it must answer with the environment, not {_kind(answered)}")
    with _plainly("the environment that it answered with is wrong"):
        changed = EnvironmentConfig.model_validate(_fields(answered))
    json.dumps(changed.model_dump(), ensure_ascii=False).encode()
    for fixed in ("id", "copy_folders", "test_folders"):
        if getattr(changed, fixed) != getattr(given, fixed):
            raise PluginError(f"it must not change the environment's {fixed}")
    return changed


def _rewards(answered: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(answered, dict):
        raise PluginError(f"it must answer with a dictionary of rewards, not {_kind(answered)}")
    for name, value in answered.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"the name of a reward must be text, not {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise PluginError(f"the reward '{name}' must be a finite number, not {value!r}")
    return tuple((valid_text(name), float(value)) for name, value in answered.items())


def _suggestions(answered: Any) -> list[str]:
    if not isinstance(answered, list | tuple):
        raise PluginError(f"suggest_improvements must answer with a list of texts, not {_kind(answered)}")
    if others := [each for each in answered if not isinstance(each, str)]:
        raise PluginError(f"suggest_improvements must answer with a list of texts, not with {_kind(others[0])} in it")
    return list(answered)


def _decision(context: PluginContext) -> Answer:
    go_on, strategy = context.get("should_continue"), context.get("strategy")
    if not isinstance(go_on, bool):
        raise PluginError(f"should_continue_rollout must answer true or false, not {go_on!r}")
    if strategy is not None and not isinstance(strategy, dict):
        raise PluginError(f"modify_rollout_strategy must answer with a dictionary, not {_kind(strategy)}")
    with _plainly("what modify_rollout_strategy answered is wrong"):
        return Answer(go_on=go_on, strategy=Strategy.model_validate(strategy or {}))


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it answered with a value of type {type(value).__name__}, which is not JSON")
