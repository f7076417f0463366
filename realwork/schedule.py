"""Which rollout is next, whether a failed one gets a new attempt, and when an environment is finished.

Pure: no clock, no Ray, no disk. Guarantees: a rollout has at most one attempt in flight and at most `max_retries` + 1
of them in all; a rollout that has been graded is never played again, nor one whose container was lost twice in a row at
the same step, or whose tests could twice in a row not be run; an environment that is not prepared yet has one rollout
in flight, so that what fails it fails once.
"""

import zlib
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from realwork.config import EnvironmentConfig, EpisodeControlConfig, RunConfig
from realwork.types import Record, Resumption, RolloutSpec, RolloutSummary

MIN_GRADED_FOR_RATE = 3


class EnvironmentProgress(Record):
    """Where an environment stands.

    Attributes:
        skipped: rollouts that episode control made unnecessary.
        withheld: rollouts of an environment that was not begun, as a budget of the run was used up.
        failed: rollouts that ended without a grade and get no new attempt, the ones never started because their
            environment failed included.
    """

    environment_id: str
    planned: int
    graded: int = 0
    successful: int = 0
    skipped: int = 0
    withheld: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0

    @property
    def done(self) -> int:
        """Rollouts of which nothing is left to do."""
        return self.graded + self.failed + self.skipped + self.withheld


class _TakenUp(NamedTuple):
    """The attempt of an earlier start that counts for a rollout: the graded one, else the last."""

    attempt: int
    success: bool | None
    resumption: Resumption | None


class _Plan:
    """The rollouts of one environment."""

    def __init__(self, environment: EnvironmentConfig, control: EpisodeControlConfig) -> None:
        self.environment_id = environment.id
        self.control = control
        self.max_retries = environment.max_retries
        self.is_prepared = not environment.needs_preparation
        self.planned = control.episodes_per_environment
        self.waiting: deque[tuple[int, int]] = deque((sample, 0) for sample in range(self.planned))
        self.taken_up: dict[int, _TakenUp] = {}
        self.first_attempts: dict[int, int] = {}
        self.resumptions: dict[int, Resumption] = {}
        self.failed_so: dict[int, tuple[str, int]] = {}
        self.in_flight = self.graded = self.successful = self.failed = self.skipped = self.withheld = 0
        self.is_stopped = False

    def take(self) -> tuple[int, int] | None:
        """The next sample and attempt, null when there is none to start now."""
        if not self.waiting or (self.in_flight and not self.is_prepared):
            return None
        self.in_flight += 1
        return self.waiting.popleft()

    def take_up(self, summary: RolloutSummary) -> None:
        """Take note of an attempt of an earlier start."""
        sample, attempt = summary.spec.sample_index, summary.spec.attempt
        if sample >= self.planned:
            return
        before = self.taken_up.get(sample)
        if before is None or (summary.success is not None, attempt) > (before.success is not None, before.attempt):
            self.taken_up[sample] = _TakenUp(attempt, summary.success, summary.resumption)

    def begin(self) -> None:
        """Plan what the attempts that were taken up have left to do."""
        for sample, found in self.taken_up.items():
            if found.success is not None:
                self.graded += 1
                self.successful += found.success
            else:
                self.first_attempts[sample] = found.attempt + 1
                if found.resumption is not None:
                    self.resumptions[sample] = found.resumption
        missing = [sample for sample in range(self.planned) if sample not in self.taken_up]
        self.waiting = deque([*((each, 0) for each in missing), *self.first_attempts.items()])
        self.taken_up.clear()
        if self._is_satisfied():
            self.skip_waiting()

    def record(self, summary: RolloutSummary) -> None:
        if summary.success is not None:
            self.graded += 1
            self.successful += summary.success
        elif not self._failed_so_again(summary) and self._may_retry(summary):
            self._note_resumption(summary)
            self.waiting.appendleft((summary.spec.sample_index, summary.spec.attempt + 1))
        else:
            self.failed += 1
        if summary.fails_environment:
            self.failed += len(self.waiting)
            self.waiting.clear()
        elif self._is_satisfied():
            self.skip_waiting()

    def skip_waiting(self) -> None:
        self.skipped += len(self.waiting)
        self.waiting.clear()

    def withhold(self) -> None:
        """Do not begin, unless it has begun."""
        is_retried = any(attempt for _, attempt in self.waiting)
        if not (self.in_flight or self.graded or self.failed or is_retried):
            self.withheld += len(self.waiting)
            self.waiting.clear()

    def _may_retry(self, summary: RolloutSummary) -> bool:
        tried = summary.spec.attempt - self.first_attempts.get(summary.spec.sample_index, 0)
        return summary.retryable and tried < self.max_retries

    def _failed_so_again(self, summary: RolloutSummary) -> bool:
        """Whether it failed just as the attempt before did, in a way in which an agent can make it fail."""
        sample = summary.spec.sample_index
        before = self.failed_so.pop(sample, None)
        if summary.loses_sandbox:
            self.failed_so[sample] = ("sandbox", summary.n_steps)
        elif summary.failure_cause == "grading":
            self.failed_so[sample] = ("grading", 0)
        return before is not None and self.failed_so.get(sample) == before

    def _note_resumption(self, summary: RolloutSummary) -> None:
        """Remember what the next attempt goes on from; one that came no further than it began is no way to go."""
        sample = summary.spec.sample_index
        tried = self.resumptions.pop(sample, None)
        if summary.failure_cause not in ("sandbox", "node"):
            return
        offered = summary.resumption
        if offered is None and tried is not None and summary.n_steps < tried.fork_step:
            offered = tried
        elif tried is not None and summary.n_steps == tried.fork_step:
            offered = None
        if offered is not None:
            self.resumptions[sample] = offered

    def _is_satisfied(self) -> bool:
        if self.is_stopped or (self.control.stop_on_success and self.successful):
            return True
        rate = self.control.min_success_rate
        return rate is not None and self.graded >= MIN_GRADED_FOR_RATE and self.successful / self.graded >= rate

    def progress(self) -> EnvironmentProgress:
        return EnvironmentProgress(
            environment_id=self.environment_id,
            planned=self.planned,
            graded=self.graded,
            successful=self.successful,
            skipped=self.skipped,
            withheld=self.withheld,
            failed=self.failed,
            in_flight=self.in_flight,
            waiting=len(self.waiting),
        )


class Schedule:
    """The rollouts of a run, environment by environment, so that groups are finished one after the other."""

    def __init__(self, config: RunConfig, run_id: str) -> None:
        """Plan every rollout of `config`."""
        self._run_id = run_id
        self._plans = {
            environment.id: _Plan(environment, config.episode_control_config) for environment in config.environments
        }

    def take_up(self, attempts: Iterable[RolloutSummary]) -> None:
        """Leave out what is graded among `attempts`, all that earlier starts have played; nothing is in flight yet."""
        for summary in attempts:
            if (plan := self._plans.get(summary.spec.environment_id)) is not None:
                plan.take_up(summary)
        for plan in self._plans.values():
            plan.begin()

    def next(self) -> RolloutSpec | None:
        """The next rollout to start, null when none can be started now."""
        for plan in self._plans.values():
            if taken := plan.take():
                sample, attempt = taken
                seed = zlib.crc32(f"{plan.environment_id}:{sample}".encode()) & 0x7FFFFFFF
                return RolloutSpec(
                    run_id=self._run_id,
                    environment_id=plan.environment_id,
                    sample_index=sample,
                    group_index=plan.control.group_index(sample),
                    group_size=plan.control.episodes_per_group,
                    attempt=attempt,
                    seed=seed,
                    resumed=plan.resumptions.get(sample) if attempt else None,
                )
        return None

    def record(self, summary: RolloutSummary) -> None:
        """Take note of the end of an attempt that `next` gave out."""
        plan = self._plans[summary.spec.environment_id]
        plan.in_flight -= 1
        plan.record(summary)

    def is_prepared(self, environment_id: str) -> bool:
        """Whether nothing is left to prepare for all rollouts of the environment."""
        return self._plans[environment_id].is_prepared

    def prepared(self, environment_id: str) -> None:
        """Take note that the environment is prepared: its rollouts may start side by side."""
        self._plans[environment_id].is_prepared = True

    def stop_environment(self, environment_id: str) -> None:
        """Start no further rollout of the environment; those that wait are skipped."""
        plan = self._plans[environment_id]
        plan.is_stopped = True
        plan.skip_waiting()

    def begin_no_more(self) -> None:
        """Begin no environment of which nothing has been played yet."""
        for plan in self._plans.values():
            plan.withhold()

    def set_max_retries(self, environment_id: str, max_retries: int) -> None:
        """Let failed rollouts of the environment have so many new attempts from now on."""
        self._plans[environment_id].max_retries = max_retries

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return all(not plan.waiting and not plan.in_flight for plan in self._plans.values())

    def progress_of(self, environment_id: str) -> EnvironmentProgress:
        """Where one environment stands."""
        return self._plans[environment_id].progress()

    def progress(self) -> list[EnvironmentProgress]:
        """Where each environment stands, in the order of the run file."""
        return [plan.progress() for plan in self._plans.values()]
