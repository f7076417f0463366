"""Progress for programs: one JSON object on each line of standard error, whose fields stay as they are.

Guarantees: a field is never renamed, nor does it change its meaning; new events and new fields may come.
"""

import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from realwork.cli.progress import MAX_ROLLOUTS_SHOWN, TELL_EVERY_S, Progress
from realwork.schedule import EnvironmentProgress
from realwork.types import Phase, Record, RolloutSummary, Status, TerminatedReason

if TYPE_CHECKING:
    from realwork.distributed.control import InFlight
    from realwork.distributed.result import RunResult


def _now() -> datetime:
    return datetime.now(UTC)


class Event(Record):
    """What all events have: `at` is when, in UTC."""

    WHEN: ClassVar[str]
    event: str
    at: datetime = Field(default_factory=_now)


class StartedEvent(Event):
    """`rollouts` are to be played, at most `parallel` at once."""

    WHEN = "once, before the first rollout"
    event: Literal["started"] = "started"
    output: str
    environments: int
    rollouts: int
    done_before: int
    parallel: int


class Rollout(Record):
    """One of those in flight that take longest; `phase` is null where its process gives no answer."""

    trajectory_id: str
    environment_id: str
    node: str
    in_flight_s: float
    phase: Phase | None = None
    phase_s: float | None = None
    step: int | None = None
    command: str | None = None


class ProgressEvent(Event):
    """How the run stands; `failures` are attempts by cause, `longest` those in flight that take longest."""

    WHEN = "every 10 s"
    event: Literal["progress"] = "progress"
    elapsed_s: float
    left_s: float | None
    rollouts: int
    done: int
    in_flight: int
    graded: int
    successful: int
    failures: dict[str, int]
    rollouts_per_s: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    longest: list[Rollout]


class RolloutEvent(Event):
    """An attempt has ended and has its row; `environment` is how its environment stands now."""

    WHEN = "at the end of each attempt"
    event: Literal["rollout"] = "rollout"
    trajectory_id: str
    environment_id: str
    sample_index: int
    attempt: int
    status: Status
    terminated_reason: TerminatedReason
    failure_cause: str | None
    error_message: str | None
    retryable: bool
    reward: float | None
    success: bool | None
    tests_passed: int | None
    tests_total: int
    steps: int
    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    duration_s: float
    environment: EnvironmentProgress


class NoteEvent(Event):
    """What a user should know, and each line of the log."""

    WHEN = "whenever there is something to say"
    event: Literal["note"] = "note"
    message: str


class FinishedEvent(Event):
    """How the run ended; `failures` are rollouts without a grade by cause, `aborted` is why it could not go on."""

    WHEN = "once, last of all but notes"
    event: Literal["finished"] = "finished"
    run_id: str
    directory: str
    exit_code: int
    interrupted: bool
    aborted: str | None
    duration_s: float
    rollouts: int
    graded: int
    successful: int
    failures: dict[str, int]


EVENTS: tuple[type[Event], ...] = (StartedEvent, ProgressEvent, RolloutEvent, NoteEvent, FinishedEvent)


class JsonProgress(Progress):
    """For programs."""

    looks_at = MAX_ROLLOUTS_SHOWN

    def __init__(self, *, every_s: float = TELL_EVERY_S) -> None:
        super().__init__(every_s=every_s)
        self._lock = threading.Lock()

    def _put(self, event: Event) -> None:
        with self._lock:
            sys.stderr.write(event.model_dump_json() + "\n")
            sys.stderr.flush()

    def _begin(self, output: str, slots: int) -> None:
        planned = sum(each.planned for each in self.tally.environments.values())
        self._put(
            StartedEvent(
                output=output,
                environments=len(self.tally.environments),
                rollouts=self.tally.to_do,
                done_before=planned - self.tally.to_do,
                parallel=slots,
            )
        )
        self._ticks.start()

    def _tell(self) -> None:
        tally = self.tally
        self._put(
            ProgressEvent(
                elapsed_s=tally.elapsed_s,
                left_s=tally.left_s,
                rollouts=tally.to_do,
                done=tally.done,
                in_flight=len(self.in_flight),
                graded=tally.graded,
                successful=tally.successful,
                failures=dict(tally.causes),
                rollouts_per_s=tally.rollouts_per_s,
                prompt_tokens=tally.prompt_tokens,
                completion_tokens=tally.completion_tokens,
                cost_usd=tally.cost_usd,
                longest=_longest(self.seen),
            )
        )

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer.rollout_finished`."""
        super().rollout_finished(summary, progress)
        self._put(
            RolloutEvent(
                trajectory_id=summary.spec.trajectory_id,
                environment_id=summary.spec.environment_id,
                sample_index=summary.spec.sample_index,
                attempt=summary.spec.attempt,
                status=summary.status,
                terminated_reason=summary.terminated_reason,
                failure_cause=summary.failure_cause,
                error_message=summary.error_message,
                retryable=summary.retryable,
                reward=summary.reward,
                success=summary.success,
                tests_passed=summary.tests_passed,
                tests_total=summary.tests_total,
                steps=summary.n_steps,
                tool_calls=summary.n_tool_calls,
                prompt_tokens=summary.prompt_tokens,
                completion_tokens=summary.completion_tokens,
                cost_usd=summary.cost_usd,
                duration_s=summary.duration_s,
                environment=progress,
            )
        )

    def _tell_of_failure(self, summary: RolloutSummary) -> None:
        """Its own event says it."""

    def note(self, message: str) -> None:
        """See `Observer.note`."""
        self._put(NoteEvent(message=message))

    def finished(self, result: "RunResult") -> None:
        """See `Progress.finished`."""
        self._ended.set()
        if self._ticks.is_alive():
            self._ticks.join()
        self._put(
            FinishedEvent(
                run_id=result.run_id,
                directory=result.directory,
                exit_code=result.exit_code,
                interrupted=result.interrupted,
                aborted=result.aborted,
                duration_s=result.duration_s,
                rollouts=sum(each.planned for each in result.environments),
                graded=sum(each.graded for each in result.environments),
                successful=sum(each.successful for each in result.environments),
                failures=result.failures,
            )
        )


def _longest(seen: "Sequence[InFlight]") -> list[Rollout]:
    return [
        Rollout(
            trajectory_id=each.trajectory_id,
            environment_id=each.environment_id,
            node=each.node,
            in_flight_s=each.seconds,
            phase=each.doing.phase if each.doing else None,
            phase_s=each.doing.seconds if each.doing else None,
            step=each.doing.step if each.doing else None,
            command=(each.doing.detail or None) if each.doing else None,
        )
        for each in seen
    ]


class NoteHandler(logging.Handler):
    """A handler of the log that makes notes of it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Note what was logged."""
        self._progress.note(f"{record.levelname}: {self.format(record)}")
