"""One call of one plugin: what goes in, what comes out, and the check of it.

Guarantees: whatever the plugin's code does short of ending the process becomes an `Answer` of plain values, checked
where the plugin ran; nothing of a plugin's own types leaves its process but `state`, which only its next call opens.
"""

import json
import math
import os
import pickle
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from numbers import Real
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from realwork.config import EnvironmentConfig, RunConfig
from realwork.errors import PluginError, RealworkError, blame
from realwork.fields import LARGEST_COUNT
from realwork.plugins.base import (
    ActionFilterPlugin,
    BasePlugin,
    EnvironmentModifierPlugin,
    EpisodeEvaluatorPlugin,
    EpisodeResult,
    PluginContext,
    PluginHookType,
    RolloutManagerPlugin,
    TrajectoryAnalyzerPlugin,
)
from realwork.text import shorten, valid_text
from realwork.types import Action, Observation, Record, RolloutSpec, RolloutSummary, Trajectory

LARGEST_ANSWER_BYTES = 1 << 20
LARGEST_STATE_BYTES = 1 << 20
LONGEST_ERROR = 1000


class HookCall(Record):
    """What plugins are told at a hook; the fields of other hooks are null."""

    hook: PluginHookType
    spec: RolloutSpec | None = None
    config: RunConfig | None = None
    environment: EnvironmentConfig | None = None
    actions: tuple[Action, ...] | None = None
    action: Action | None = None
    result: Observation | None = None
    trajectory: Trajectory | None = None
    environment_id: str | None = None
    results: tuple[RolloutSummary, ...] | None = None

    def context(self) -> dict[str, Any]:
        """The keys and values of the plugin's context."""
        keys: dict[str, Any] = {"results": self.results, "action": self.action, "result": self.result}
        if self.spec is not None:
            keys |= {
                "episode_id": self.spec.rollout_id,
                "environment_id": self.spec.environment_id,
                "trajectory_id": self.spec.trajectory_id,
            }
        if self.config is not None:
            keys |= {"environments": self.config.environments, "config": self.config}
        if self.actions is not None:
            keys["actions"] = list(self.actions)
        if self.environment is not None:
            keys["environment_config"] = self.environment
        if self.trajectory is not None:
            keys |= {
                "trajectory": self.trajectory,
                "test_results": self.trajectory.test_results,
                "episode_result": episode_result(self.trajectory),
            }
        if self.results is not None:
            keys["results"] = list(self.results)
            if self.environment_id is not None:
                keys |= {"environment_id": self.environment_id, "episode_count": len(self.results)}
            else:
                keys["rollout_stats"] = _stats(self.results)
        return {key: value for key, value in keys.items() if value is not None}


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
        state: the context's keys of the plugin's own, pickled; empty when there are none.
        lost: whether the process ended or gave no answer in time, so that a further call would cost as much.
    """

    filtered: tuple[Filtered, ...] | None = None
    environment: EnvironmentConfig | None = None
    data: str | None = None
    rewards: tuple[tuple[str, float], ...] | None = None
    go_on: bool = True
    strategy: Strategy | None = None
    state: bytes = b""
    error: str | None = None
    lost: bool = False


def episode_result(trajectory: Trajectory) -> EpisodeResult:
    """`trajectory` in short."""
    return EpisodeResult(
        episode_id=trajectory.spec.rollout_id,
        environment_id=trajectory.spec.environment_id,
        status=trajectory.status,
        terminated_reason=trajectory.terminated_reason,
        success=trajectory.success,
        reward=trajectory.reward,
        tests_passed=trajectory.tests_passed,
        tests_total=trajectory.tests_total,
        n_steps=len(trajectory.steps),
        duration_s=(trajectory.ended_at - trajectory.started_at).total_seconds(),
    )


async def call_plugin(plugin: BasePlugin, call: HookCall, state: bytes = b"") -> Answer:
    """Call `plugin` in this process. Never raises but for cancellation."""
    try:
        with blame(PluginError, "its code failed"):
            return await _call(plugin, call, state)
    except (RealworkError, SystemExit) as error:
        return Answer(error=f"{call.hook}: {explain(error)}", state=state)


async def _call(plugin: BasePlugin, call: HookCall, state: bytes) -> Answer:
    given = call.context()
    context = PluginContext((pickle.loads(state) if state else {}) | given)
    if not await plugin.initialize():
        raise PluginError("initialize() returned false")
    try:
        answered = await plugin.execute(call.hook, context)
    finally:
        await plugin.cleanup()
    if not isinstance(answered, PluginContext):
        raise PluginError(f"execute() must return the context, not {type(answered).__name__}")
    answer = _checked(plugin, call, answered)
    return answer.model_copy(update={"state": _kept(answered, given)})


def _kept(context: PluginContext, given: dict[str, Any]) -> bytes:
    """What the plugin set under keys of its own, pickled."""
    answers = {"analysis", "suggestions", "evaluation", "should_continue", "strategy"}
    own = {key: value for key, value in context.as_dict().items() if key not in given and key not in answers}
    state = pickle.dumps(own) if own else b""
    if len(state) > LARGEST_STATE_BYTES:
        raise PluginError(f"what it keeps in the context is larger than {LARGEST_STATE_BYTES >> 20} MiB")
    return state


def _checked(plugin: BasePlugin, call: HookCall, context: PluginContext) -> Answer:
    match plugin, call.hook:
        case ActionFilterPlugin(), PluginHookType.PRE_ACTION:
            return Answer(filtered=_filtered(plugin, call.actions or (), context.get("actions")))
        case EnvironmentModifierPlugin(), PluginHookType.PRE_EPISODE if call.environment is not None:
            return Answer(environment=_environment(call.environment, context.get("environment_config")))
        case EpisodeEvaluatorPlugin(), PluginHookType.POST_TEST:
            return Answer(rewards=_rewards(context.get("evaluation")))
        case TrajectoryAnalyzerPlugin(), PluginHookType.POST_EPISODE:
            found = {"analysis": context.get("analysis"), "suggestions": context.get("suggestions")}
            return Answer(data=_json(found))
        case RolloutManagerPlugin(), PluginHookType.POST_EPISODE if call.results is not None:
            return _decision(context)
    return Answer()


def _filtered(plugin: ActionFilterPlugin, given: Sequence[Action], answered: Any) -> tuple[Filtered, ...]:
    if not isinstance(answered, list | tuple):
        raise PluginError(f"it must answer with a list of actions, not {type(answered).__name__}")
    own = {id(action) for action in given}
    kept = [action if id(action) in own else _action(action) for action in answered]
    result: list[Filtered] = []
    for what, begin, end, first, last in SequenceMatcher(None, given, kept, autojunk=False).get_opcodes():
        if what == "equal" or (what == "replace" and end - begin == last - first):
            result += [Filtered(action=action) for action in kept[first:last]]
        elif what == "delete":
            result += [
                Filtered(action=None, reason=valid_text(shorten(str(plugin.block_reason(action)), LONGEST_ERROR)))
                for action in given[begin:end]
            ]
        else:
            raise PluginError("it answered with actions that are not the given ones, nor as many")
    return tuple(result)


def _action(answered: Any) -> Action:
    """A plain action of the tree, checked as if it were new: a copy with changes is not checked by itself."""
    action: Action = TypeAdapter(Action).validate_python(_fields(answered))
    for name, value in action.model_dump().items():
        if isinstance(value, str) and value != valid_text(value):
            raise PluginError(f"the {name} of an action must be valid text without NUL characters")
    return action


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
    changed = EnvironmentConfig.model_validate(_fields(answered))
    json.dumps(changed.model_dump(), ensure_ascii=False).encode()
    for fixed in ("id", "copy_folders", "test_folders"):
        if getattr(changed, fixed) != getattr(given, fixed):
            raise PluginError(f"it must not change the environment's {fixed}")
    return changed


def _rewards(answered: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(answered, dict):
        raise PluginError(f"it must answer with a dictionary of rewards, not {type(answered).__name__}")
    for name, value in answered.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"the name of a reward must be text, not {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise PluginError(f"the reward '{name}' must be a finite number, not {value!r}")
    return tuple((valid_text(name), float(value)) for name, value in answered.items())


def _decision(context: PluginContext) -> Answer:
    go_on, strategy = context.get("should_continue"), context.get("strategy")
    if not isinstance(go_on, bool):
        raise PluginError(f"should_continue_rollout must answer true or false, not {go_on!r}")
    return Answer(go_on=go_on, strategy=Strategy.model_validate(strategy or {}))


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, default=_plain)
    if len(text) > LARGEST_ANSWER_BYTES:
        raise PluginError(f"it answered with more than {LARGEST_ANSWER_BYTES >> 20} MiB of JSON")
    return text


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it answered with a value of type {type(value).__name__}, which is not JSON")


def _stats(results: Sequence[RolloutSummary]) -> dict[str, Any]:
    """Totals of a run for `post_rollout`."""
    rewards = [each.reward for each in results if each.reward is not None]
    return {
        "attempts": len(results),
        "graded": len(rewards),
        "successful": sum(each.success is True for each in results),
        "failed": sum(each.status == "failed" for each in results),
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
    }


@contextmanager
def with_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process has the environment variables `variables` for the length of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def explain(error: BaseException) -> str:
    """What went wrong in a plugin, and in which line of it, if that is known."""
    cause = error.__cause__ or error
    said = shorten(str(error).strip(), LONGEST_ERROR)
    where = [] if isinstance(cause, RealworkError) else [type(cause).__name__]
    frames = traceback.extract_tb(cause.__traceback__) if error.__cause__ is not None else []
    if frames:
        where.append(f"{frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}")
    return valid_text(f"{said} ({', '.join(where)})" if where else said)
