"""JSON lines of the Agent Trajectory Interchange Format 1.8, Harbor's: a whole document per line. Pure functions over
the Parquet.

One document per rollout: its graded attempt if it has one, else its last, which has no reward. A step is a message of
the system or the user, or a reply with the results of its calls. Prompt token ids, which would repeat the history in
every step, are left to `samples/`; completion ids and log-probabilities are there where the endpoint told them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from realwork.analysis.export.files import Exported, Json, exported, write_json_lines
from realwork.analysis.export.rollouts import Selection, every_rollout
from realwork.dataset.read import run_directories
from realwork.dataset.run_directory import RUN_FILE
from realwork.model.context import to_chat
from realwork.types import Message, Observation, Step, ToolCall, Trajectory

SCHEMA_VERSION = "ATIF-v1.8"
AGENT = "realwork"
UNKNOWN_VERSION = "unknown"
SILENT = "rollouts without a message"


def export_atif(directory: Path, output: Path) -> Exported:
    """Write the rollouts of `directory` to `output`.

    Raises:
        InputError: there is no run, no rollout with a message, or `output` is no place for a file.
        StoreError: a part cannot be read, or the file cannot be written.
    """
    selection = every_rollout(directory)
    nothing = f"No rollout in {directory} has got as far as its first message, so there is nothing to export."
    written = write_json_lines(output, _documents(selection, directory), nothing=nothing)
    return exported(written, selection.left_out)


def document(trajectory: Trajectory, version: str = UNKNOWN_VERSION) -> Json:
    """`trajectory` as a document; `version` is that of realwork when it was played.

    Its steps are empty, which the format forbids, if the trajectory has no messages.
    """
    spec = trajectory.spec
    agent = {"name": AGENT, "version": version, "tool_definitions": json.loads(trajectory.tools)}
    return {
        "schema_version": SCHEMA_VERSION,
        "session_id": f"{spec.run_id}:{spec.rollout_id}",
        "trajectory_id": spec.trajectory_id,
        "agent": agent | ({"model_name": trajectory.model} if trajectory.model else {}),
        "steps": [{"step_id": number, **step} for number, step in enumerate(_steps(trajectory), 1)],
        "final_metrics": _final_metrics(trajectory),
        "extra": _extra(trajectory),
    }


def _documents(selection: Selection, directory: Path) -> Iterator[Json]:
    versions = _versions(directory)
    for trajectory in selection.trajectories(directory):
        if trajectory.messages:
            yield document(trajectory, versions.get(trajectory.spec.run_id, UNKNOWN_VERSION))
        else:
            selection.left_out[SILENT] += 1


def _versions(directory: Path) -> dict[str, str]:
    """Which version of realwork has played each run, where its run file says so."""
    found = {}
    for run in run_directories(directory):
        try:
            said = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
            found[said["run_id"]] = str(said["versions"]["realwork"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _steps(trajectory: Trajectory) -> Iterator[Json]:
    """A step for each message but the answers to tool calls, which stand with the calls."""
    by_message = {step.message_index: step for step in trajectory.steps}
    answers = {message.tool_call_id: message.content or "" for message in trajectory.messages if message.role == "tool"}
    for position, message in enumerate(trajectory.messages):
        if message.role == "assistant":
            yield _agent_step(message, by_message.get(position), answers, trajectory)
        elif message.role != "tool":
            yield {"source": message.role, "message": message.content or ""}


def _agent_step(message: Message, step: Step | None, answers: dict[str | None, str], trajectory: Trajectory) -> Json:
    found: Json = {"source": "agent", "message": message.content or ""}
    if message.reasoning_content is not None:
        found["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        found["tool_calls"] = _calls(message)
        observations = {each.call_id: each for each in step.observations} if step else {}
        results = [_result(call, answers, observations.get(call.id)) for call in message.tool_calls]
        found["observation"] = {"results": results}
    if step is not None:
        found |= _of_step(step, taken_over=step.index < (trajectory.fork_step or 0))
    return found


def _of_step(step: Step, *, taken_over: bool) -> Json:
    extra = {"finish_reason": step.finish_reason, "error": step.error, "policy_version": step.policy_version}
    found: Json = {
        "timestamp": step.started_at.isoformat(),
        "model_name": step.model,
        "metrics": _metrics(step) or None,
        "llm_call_count": 1,
        "is_copied_context": True if taken_over else None,
        "extra": _told(extra) or None,
    }
    return _told(found)


def _calls(message: Message) -> list[Json]:
    (shown,) = to_chat([message])
    return [
        _call(call, chat["function"]["arguments"])
        for call, chat in zip(message.tool_calls, shown["tool_calls"], strict=True)
    ]


def _call(call: ToolCall, arguments: str) -> Json:
    """Arguments that are no JSON object are empty, with what the model wrote beside them."""
    found: Json = {"tool_call_id": call.id, "function_name": call.function.name, "arguments": json.loads(arguments)}
    if not found["arguments"] and call.function.arguments.strip() not in ("", "{}"):
        found["extra"] = {"written_arguments": call.function.arguments}
    return found


def _result(call: ToolCall, answers: dict[str | None, str], observation: Observation | None) -> Json:
    found: Json = {"source_call_id": call.id, "content": answers.get(call.id, "")}
    if observation is not None:
        extra = {
            "status": observation.status,
            "exit_code": observation.exit_code,
            "duration_s": observation.duration_s,
            "decision": observation.decision,
        }
        found["extra"] = _told(extra)
    return found


def _metrics(step: Step) -> Json:
    found: Json = step.usage.model_dump()
    if step.tokens is not None:
        found["completion_token_ids"] = list(step.tokens.completion)
        found["logprobs"] = list(step.tokens.logprobs)
    return _told(found)


def _final_metrics(trajectory: Trajectory) -> Json:
    """Sums over the steps that the attempt took itself; those taken over were paid for before."""
    usages = [step.usage for step in trajectory.own_steps]
    return _told(
        {
            "total_prompt_tokens": _sum([usage.prompt_tokens for usage in usages]),
            "total_completion_tokens": _sum([usage.completion_tokens for usage in usages]),
            "total_cached_tokens": _sum([usage.cached_tokens for usage in usages]),
            "total_cost_usd": trajectory.totals.cost_usd,
            "total_steps": sum(message.role != "tool" for message in trajectory.messages),
        }
    )


def _sum(values: Sequence[int | None]) -> int | None:
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def _extra(trajectory: Trajectory) -> Json:
    """What the format has no field for; `reward` is null where there is no grade."""
    spec = trajectory.spec
    return {
        "run_id": spec.run_id,
        "environment_id": spec.environment_id,
        "group_id": spec.group_id,
        "sample_index": spec.sample_index,
        "attempt": spec.attempt,
        "status": trajectory.status,
        "terminated_reason": trajectory.terminated_reason,
        "failure_cause": trajectory.failure_cause,
        "error_message": trajectory.error_message,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "tests": [{"command": test.command, "status": test.status} for test in trajectory.test_commands],
        "started_at": trajectory.started_at.isoformat(),
        "ended_at": trajectory.ended_at.isoformat(),
    }


def _told(fields: dict[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
