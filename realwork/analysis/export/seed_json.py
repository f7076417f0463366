"""The list of trajectories as one JSON file, and its numbers in a second one.

Pure functions over the Parquet. One entry per rollout: its graded attempt if it has one, else its last; both files
appear whole or not at all, and one trajectory at a time is in memory.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from realwork.analysis.attempts import Attempt, Results, attempts
from realwork.analysis.export.files import Exported, exported
from realwork.analysis.export.rollouts import EARLIER
from realwork.analysis.stats import mean
from realwork.dataset.durable import durable_file
from realwork.dataset.read import trajectories
from realwork.errors import InputError, StoreError
from realwork.text import valid_unicode
from realwork.tools import parse_call
from realwork.types import (
    CommandAction,
    DoneAction,
    InvalidAction,
    Observation,
    ReadAction,
    Snapshot,
    Step,
    TestResult,
    ToolCall,
    Trajectory,
    WriteAction,
)

Json = dict[str, Any]


def export_json(directory: Path, output: Path) -> Exported:
    """Write the trajectories of `directory` to `output`, and their numbers beside it with the suffix `.stats.json`.

    Raises:
        InputError: there is no run, or `output` is no place for a file.
        StoreError: a part cannot be read, or a file cannot be written.
    """
    found, seen = Results(), 0
    for attempt, _ in attempts(directory):
        found.add(attempt)
        seen += 1
    results = found.by_environment()
    chosen = {rollout.trajectory_id for rollouts in results.values() for rollout in rollouts}
    entries = (entry(trajectory) for trajectory in trajectories(directory) if trajectory.spec.trajectory_id in chosen)
    _write(output, _list(entries))
    _write(output.with_suffix(".stats.json"), [_dump(totals(results), indent=2)])
    return exported(len(chosen), {EARLIER: seen - len(chosen)})


def entry(trajectory: Trajectory) -> Json:
    """`trajectory` as it stands in the list."""
    spec = trajectory.spec
    tests = [_test(test) for test in trajectory.test_commands]
    return {
        "trajectory_id": spec.trajectory_id,
        "environment_id": spec.environment_id,
        "start_time": trajectory.started_at.isoformat(),
        "end_time": trajectory.ended_at.isoformat(),
        "steps": [{"step_id": number, **step} for number, step in enumerate(_steps(trajectory))],
        "test_results": tests,
        "episode_result": {
            "environment_id": spec.environment_id,
            "success": trajectory.success is True,
            "total_actions": sum(len(step.observations) for step in trajectory.steps),
            "duration": (trajectory.ended_at - trajectory.started_at).total_seconds(),
            "test_results": tests,
            "terminated_reason": trajectory.terminated_reason,
            "final_score": _score(trajectory),
            "token_usage": _token_usage(trajectory.steps),
        },
        "metadata": {
            **_metadata(trajectory.metadata),
            "run_id": spec.run_id,
            "group_id": spec.group_id,
            "sample_index": spec.sample_index,
            "attempt": spec.attempt,
            "status": trajectory.status,
            "failure_cause": trajectory.failure_cause,
            "error_type": trajectory.error_type,
            "error_message": trajectory.error_message,
            "reward": trajectory.reward,
            "model": trajectory.model,
        },
    }


def totals(results: dict[str, list[Attempt]]) -> Json:
    """The numbers of the rollouts' results, by environment; durations in seconds."""
    environments = {name: _numbers(rollouts) for name, rollouts in results.items()}
    return {
        "total_episodes": sum(numbers["episodes"] for numbers in environments.values()),
        "successful_episodes": sum(numbers["successful"] for numbers in environments.values()),
        "failed_episodes": sum(numbers["failed"] for numbers in environments.values()),
        "total_duration": sum(numbers["total_duration"] for numbers in environments.values()),
        "environments": environments,
    }


def _numbers(rollouts: list[Attempt]) -> Json:
    successful = sum(rollout.success is True for rollout in rollouts)
    return {
        "episodes": len(rollouts),
        "successful": successful,
        "failed": len(rollouts) - successful,
        "total_duration": sum(rollout.duration_s for rollout in rollouts),
        "avg_score": mean(rollout.score for rollout in rollouts),
    }


def _steps(trajectory: Trajectory) -> Iterator[Json]:
    """One entry per tool call; the calls of a reply follow each other from the moment it was there."""
    for step in trajectory.steps:
        began = step.started_at + timedelta(seconds=step.llm_s)
        calls = trajectory.messages[step.message_index].tool_calls
        for call, observation in zip(calls, step.observations, strict=False):
            ended = began + timedelta(seconds=observation.duration_s)
            yield {
                "timestamp": began.isoformat(),
                "action": _action(call),
                "result": _result(observation, ended),
                "state_snapshot": _snapshot(step.state_snapshot) if call is calls[-1] else None,
            }
            began = ended


def _snapshot(snapshot: Snapshot | None) -> Json | None:
    """What was kept when the last call of a step had been carried out."""
    return None if snapshot is None else snapshot.model_dump(mode="json")


def _action(call: ToolCall) -> Json:
    """What the model asked for, before any plugin changed it."""
    plain: Json = {"timeout": None, "working_directory": None, "background": False}
    match parse_call(call):
        case CommandAction() as action:
            return {
                "type": action.kind,
                "content": action.command,
                "timeout": action.timeout_s,
                "working_directory": action.working_directory,
                "background": action.background,
            }
        case WriteAction() as action:
            return {"type": action.kind, "content": action.content, "filepath": action.path, **plain}
        case ReadAction() as action:
            return {"type": action.kind, "content": action.path, **plain}
        case DoneAction() as action:
            return {"type": action.kind, "content": action.message, **plain}
        case InvalidAction() as action:
            return {"type": action.kind, "content": call.function.arguments, **plain}


def _result(observation: Observation, ended: datetime) -> Json:
    return {
        "success": observation.status == "ok",
        "output": observation.output,
        "error": observation.error,
        "exit_code": observation.exit_code,
        "duration": observation.duration_s,
        "timestamp": ended.isoformat(),
    }


def _test(test: TestResult) -> Json:
    return {
        "command": test.command,
        "success": test.status == "passed",
        "output": test.output,
        "error": test.error,
        "exit_code": test.exit_code,
        "duration": test.duration_s,
        "timestamp": test.started_at.isoformat(),
    }


def _score(trajectory: Trajectory) -> float | None:
    passed = trajectory.tests_passed
    return passed / trajectory.tests_total if passed is not None and trajectory.tests_total else None


def _token_usage(steps: Iterable[Step]) -> Json:
    """Sums of what the endpoint said; a hit is a reply whose prompt came, in part, from the endpoint's cache."""
    usages = [(step.usage, step.retries) for step in steps]
    hits = sum((usage.cached_tokens or 0) > 0 for usage, _ in usages)
    return {
        "total_input_tokens": sum(usage.prompt_tokens or 0 for usage, _ in usages),
        "total_output_tokens": sum(usage.completion_tokens or 0 for usage, _ in usages),
        "api_calls": sum(1 + retries for _, retries in usages),
        "cache_hits": hits,
        "cache_misses": len(usages) - hits,
        "cache_hit_rate": hits / len(usages) if usages else 0.0,
    }


def _metadata(text: str) -> Json:
    value = json.loads(text, parse_constant=str)
    return value if isinstance(value, dict) else {"metadata": value}


def _list(entries: Iterable[Json]) -> Iterator[str]:
    separator = "[\n"
    for item in entries:
        yield separator + _dump(item)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _dump(value: Json, indent: int | None = None) -> str:
    return valid_unicode(json.dumps(value, ensure_ascii=False, indent=indent))


def _write(path: Path, texts: Iterable[str]) -> None:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file. Give a file name for the JSON list of trajectories.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(path) as file:
            for text in texts:
                file.write(text.encode())
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}") from error
