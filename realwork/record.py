"""The record of one attempt: what it shares with others, and how it is made.

Guarantees: a failure takes the grade with it, so that no failed record has a reward; it can be read at any time.
"""

import json
import platform
from datetime import UTC, datetime
from typing import Any

import realwork
from realwork.config import EnvironmentConfig, RunConfig
from realwork.environment import PackedFolder
from realwork.episode import Episode
from realwork.errors import (
    EpisodeError,
    FailureCause,
    NodeError,
)
from realwork.grading import Grade
from realwork.model.base import Model
from realwork.model.scripted import Script
from realwork.plugins.panel import PackedPlugin
from realwork.sandbox.cpu_slots import NoSlots, Slots
from realwork.secret import KeySource
from realwork.text import tail
from realwork.tools import tool_schemas
from realwork.types import (
    Message,
    NamedReward,
    Record,
    RolloutSpec,
    Status,
    TerminatedReason,
    Timing,
    Trajectory,
)

_REASON_OF_CAUSE: dict[FailureCause, TerminatedReason] = {
    "sandbox": "environment_error",
    "model": "llm_error",
    "grading": "grading_error",
    "node": "environment_error",
    "plugin": "environment_error",
    "cancelled": "cancelled",
}
MAX_MESSAGE_CHARACTERS = 4000


class RolloutSettings(Record):
    """What every rollout of a run shares.

    Attributes:
        config: without the key.
        key: where the processes of rollouts find the key.
        script: what the built-in model plays, null for a real one.
        folders: the packed `copy_folders` by environment id; `test_folders` likewise.
        environments_json: what a row may show of each environment, nothing secret, by environment id.
        driver: the driver's process as a label of containers, so that they can be told to be left over.
        timeout_multiplier: what a rollout manager made of the timeouts; they stand in `config` already multiplied.
    """

    config: RunConfig
    key: KeySource = KeySource()
    script: Script | None = None
    folders: dict[str, tuple[PackedFolder, ...]] = {}
    test_folders: dict[str, tuple[PackedFolder, ...]] = {}
    environments_json: dict[str, str] = {}
    plugins: tuple[PackedPlugin, ...] = ()
    timeout_multiplier: float = 1.0
    driver: str = ""

    def stretched(self, factor: float) -> "RolloutSettings":
        """The same settings, every timeout of an environment multiplied by `factor`."""
        if factor == 1.0:
            return self
        config = self.config
        environments = [
            each.model_copy(update={"timeout_config": config.timeouts(each).stretched(factor)})
            for each in config.environments
        ]
        changed = config.model_copy(update={"environments": environments})
        return self.model_copy(update={"config": changed, "timeout_multiplier": factor})


class AttemptRecord:
    """The record of one attempt while it is made.

    Attributes:
        environment: as the rollout runs with it.
        episode: null until it begins.
        grade: null unless the tests ran to their end and nothing failed.
        seconds: fields of `Timing`.
        model: null until it is opened.
        place: `node_id` and `image_digest`, as soon as they are known.
        parent: the attempt that this one goes on from, null when it begins at the beginning.
        not_enforced: names of the protections that do not hold there.
        slots: the CPU slots that it takes.
        final_diff: what the agent changed, null until it is known.
    """

    def __init__(
        self, spec: RolloutSpec, settings: RolloutSettings, *, queue_s: float = 0.0, image_s: float = 0.0
    ) -> None:
        self.environment: EnvironmentConfig = settings.config.environment(spec.environment_id)
        self.episode: Episode | None = None
        self.grade: Grade | None = None
        self.seconds = {"queue_s": queue_s, "image_s": image_s}
        self.model: Model | None = None
        self.place: dict[str, Any] = {}
        self.not_enforced: tuple[str, ...] = ()
        self.slots: Slots = NoSlots()
        self.parent: Trajectory | None = None
        self.final_diff: str | None = None
        self._spec = spec.model_copy(update={"resumed": None})
        self._settings = settings
        self._started_at = datetime.now(UTC)
        self._failure: dict[str, Any] = {}
        self._status: Status = "failed"
        self._reason: TerminatedReason = "environment_error"

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was stopped before the attempt ended."""
        return self._status == "cancelled"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as it stands now."""
        return tuple(self.episode.messages) if self.episode else ()

    def end(self, reason: TerminatedReason) -> None:
        """Record that the episode ended by `reason` and was graded."""
        self._status = "completed" if reason in ("completed", "completed_naturally") else "truncated"
        self._reason = reason

    def fail(self, error: Exception) -> None:
        """Record a failure of ours, a defect included: whatever was graded before does not count."""
        self.grade = None
        self._failure = _failure(error)
        self._status, self._reason = self._failure["status"], self._failure["terminated_reason"]

    def trajectory(self) -> Trajectory:
        """The record as it stands now."""
        config = self._settings.config
        episode = self.episode
        steps = tuple(episode.steps) if episode else ()
        taken_over = self._taken_over()
        own = steps[taken_over.get("fork_step", 0) :]
        graded: dict[str, Any] = {}
        if self.grade is not None:
            reward = self.grade.reward
            graded = {
                "reward": reward,
                "rewards": (NamedReward(name="tests", value=reward),),
                "success": self.grade.success,
                "test_results": self.grade.test_results,
                "grading_mode": self.grade.mode,
                "changed_outside": self.grade.changed_outside,
            }
        in_steps = {"llm_s": sum(step.llm_s for step in own), "env_s": sum(step.env_s for step in own)}
        timing = Timing(**self.seconds, **in_steps, slot_s=self.slots.waited_s)
        ended = {"status": self._status, "terminated_reason": self._reason} | self._failure
        return Trajectory(
            spec=self._spec,
            started_at=self._started_at,
            ended_at=datetime.now(UTC),
            messages=self.messages,
            tools=json.dumps(tool_schemas()),
            steps=steps,
            sampling_params=json.dumps(self.model.sampling_params if self.model else {}),
            model=self.model.name if self.model else config.llm_config.model,
            base_url_host=self.model.host if self.model else "",
            timing=timing,
            docker_image=self.environment.docker_image,
            final_diff=self.final_diff,
            network=config.network(self.environment),
            environment=self._settings.environments_json.get(self.environment.id, "{}"),
            metadata=json.dumps(self._metadata()),
            **taken_over,
            **graded,
            **self.place,
            **ended,
        )

    def _taken_over(self) -> dict[str, Any]:
        if self.parent is None or self.episode is None:
            return {}
        return {"parent_trajectory_id": self.parent.spec.trajectory_id, "fork_step": self.episode.begun}

    def _metadata(self) -> dict[str, Any]:
        factor = self._settings.timeout_multiplier
        stretched = {} if factor == 1.0 else {"timeout_multiplier": factor}
        known = {"realwork_version": realwork.__version__, "python": platform.python_version()}
        return known | {"not_enforced": list(self.not_enforced)} | stretched


def failed_rollout(spec: RolloutSpec, settings: RolloutSettings, error: EpisodeError) -> Trajectory:
    """The record of an attempt that `error` ended before its own process could write one."""
    record = AttemptRecord(spec, settings)
    record.fail(error)
    return record.trajectory()


def cut_off_rollout(spec: RolloutSpec, settings: RolloutSettings, unfinished: Trajectory | None) -> Trajectory:
    """The record of an attempt that ended with an earlier start of the run, of which `settings` may know no more."""
    error = NodeError("the run was cut off before the rollout ended")
    if any(each.id == spec.environment_id for each in settings.config.environments):
        return with_steps(failed_rollout(spec, settings, error), unfinished)
    now = datetime.now(UTC)
    return with_steps(Trajectory(spec=spec, started_at=now, ended_at=now, **_failure(error)), unfinished)


def with_steps(lost: Trajectory, unfinished: Trajectory | None) -> Trajectory:
    """`unfinished`, the last record that the attempt has handed over, with the end of `lost`; `lost` if it is null."""
    if unfinished is None:
        return lost
    ended = ("status", "terminated_reason", "ended_at", "failure_cause", "error_type", "error_message", "retryable")
    return unfinished.model_copy(update={name: getattr(lost, name) for name in ended})


def _failure(error: Exception) -> dict[str, Any]:
    """How an attempt ends that `error`, a defect included, has ended."""
    cause = error.cause if isinstance(error, EpisodeError) else NodeError.cause
    return {
        "status": "cancelled" if cause == "cancelled" else "failed",
        "terminated_reason": _REASON_OF_CAUSE[cause],
        "failure_cause": cause,
        "error_type": type(error).__name__,
        "error_message": tail(str(error), MAX_MESSAGE_CHARACTERS),
        "retryable": isinstance(error, EpisodeError) and error.retryable,
    }
