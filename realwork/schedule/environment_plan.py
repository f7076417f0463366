"""The rollouts of one environment: which wait, which get a new attempt, when there is nothing left to play.

Pure. A group is open from its first attempt until nothing of it is left to play; new samples are started in order.
"""

from collections import deque
from typing import Literal, NamedTuple

from realwork.config import EnvironmentConfig, EpisodeControlConfig
from realwork.types import Record, Resumption, RolloutSummary

MIN_GRADED_FOR_RATE = 3
NextStep = Literal["nothing", "goes on", "opens a group"]


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


def is_satisfied(control: EpisodeControlConfig, *, graded: int, successful: int) -> bool:
    """Whether episode control wants no further episode of an environment of which so many were played."""
    rate = control.min_success_rate
    has_rate = rate is not None and graded >= MIN_GRADED_FOR_RATE and successful / graded >= rate
    return has_rate or (control.stop_on_success and successful > 0)


class EnvironmentPlan:
    """The rollouts of one environment.

    Attributes:
        open_groups: the groups that have begun and are not done.
    """

    def __init__(self, environment: EnvironmentConfig, control: EpisodeControlConfig) -> None:
        self.environment_id = environment.id
        self.control = control
        self.max_retries = environment.max_retries
        self.is_prepared = not environment.needs_preparation
        self.planned = control.episodes_per_environment
        self.waiting: deque[tuple[int, int]] = deque((sample, 0) for sample in range(self.planned))
        self.open_groups: set[int] = set()
        self.resumptions: dict[int, Resumption] = {}
        self.in_flight = self.graded = self.successful = self.failed = self.skipped = self.withheld = 0
        self.is_stopped = False
        self._left_of_group: dict[int, int] = {}
        self._taken_up: dict[int, _TakenUp] = {}
        self._first_attempts: dict[int, int] = {}
        self._failed_so: dict[int, tuple[str, int]] = {}

    @property
    def left(self) -> int:
        """Rollouts that wait or are in flight."""
        return len(self.waiting) + self.in_flight

    @property
    def next_step(self) -> NextStep:
        """What starting the next rollout would be."""
        if not self.waiting or (self.in_flight and not self.is_prepared):
            return "nothing"
        return "goes on" if self._group_of(self.waiting[0][0]) in self.open_groups else "opens a group"

    def _group_of(self, sample: int) -> int:
        return self.control.group_index(sample) or 0

    def take(self) -> tuple[int, int]:
        """The next sample and attempt; there must be one."""
        sample, attempt = self.waiting.popleft()
        self.open_groups.add(self._group_of(sample))
        self.in_flight += 1
        return sample, attempt

    def take_up(self, summary: RolloutSummary) -> None:
        """Take note of an attempt of an earlier start."""
        sample, attempt = summary.spec.sample_index, summary.spec.attempt
        if sample >= self.planned:
            return
        before = self._taken_up.get(sample)
        if before is None or (summary.success is not None, attempt) > (before.success is not None, before.attempt):
            self._taken_up[sample] = _TakenUp(attempt, summary.success, summary.resumption)

    def begin(self) -> None:
        """Plan what the attempts that were taken up have left to do."""
        for sample, found in self._taken_up.items():
            self.open_groups.add(self._group_of(sample))
            if found.success is not None:
                self.graded += 1
                self.successful += found.success
                self._finish(sample)
            else:
                self._first_attempts[sample] = found.attempt + 1
                if found.resumption is not None:
                    self.resumptions[sample] = found.resumption
        missing = [(sample, 0) for sample in range(self.planned) if sample not in self._taken_up]
        self.waiting = deque(sorted([*missing, *self._first_attempts.items()], key=self._place_in_turn))
        self._taken_up.clear()
        if self._is_satisfied():
            self.skip_waiting()

    def _place_in_turn(self, waiting: tuple[int, int]) -> tuple[bool, bool]:
        """Open groups come first, in them the samples that were not tried yet."""
        return self._group_of(waiting[0]) not in self.open_groups, waiting[1] > 0

    def record(self, summary: RolloutSummary) -> None:
        """Take note of the end of an attempt that `take` gave out."""
        sample = summary.spec.sample_index
        self.in_flight -= 1
        if summary.success is not None:
            self.graded += 1
            self.successful += summary.success
            self._finish(sample)
        elif not self._failed_so_again(summary) and self._may_retry(summary):
            self._note_resumption(summary)
            self.waiting.appendleft((sample, summary.spec.attempt + 1))
        else:
            self.failed += 1
            self._finish(sample)
        if summary.fails_environment:
            self.failed += self._drop_waiting()
        elif self._is_satisfied():
            self.skip_waiting()

    def cancel_waiting(self, sample: int, attempt: int | None = None) -> int | None:
        """Take a sample that waits out of the plan, as failed; the attempt that it waited for, null if it does not."""
        for waiting in self.waiting:
            if waiting[0] == sample and attempt in (None, waiting[1]):
                self.waiting.remove(waiting)
                self.failed += 1
                self._finish(sample)
                return waiting[1]
        return None

    def skip_waiting(self) -> None:
        """Leave out all that waits."""
        self.skipped += self._drop_waiting()

    def withhold(self) -> None:
        """Do not begin, unless it has begun."""
        is_retried = any(attempt for _, attempt in self.waiting)
        if not (self.in_flight or self.graded or self.failed or is_retried):
            self.withheld += self._drop_waiting()

    def _drop_waiting(self) -> int:
        dropped = len(self.waiting)
        for sample, _ in self.waiting:
            self._finish(sample)
        self.waiting.clear()
        return dropped

    def _finish(self, sample: int) -> None:
        """Nothing is left to play of `sample`."""
        group = self._group_of(sample)
        left = self._left_of_group.pop(group, self.control.episodes_per_group) - 1
        if left:
            self._left_of_group[group] = left
        else:
            self.open_groups.discard(group)

    def _may_retry(self, summary: RolloutSummary) -> bool:
        tried = summary.spec.attempt - self._first_attempts.get(summary.spec.sample_index, 0)
        return summary.retryable and tried < self.max_retries

    def _failed_so_again(self, summary: RolloutSummary) -> bool:
        """Whether it failed just as the attempt before did, in a way in which an agent can make it fail."""
        sample = summary.spec.sample_index
        before = self._failed_so.pop(sample, None)
        if summary.loses_sandbox:
            self._failed_so[sample] = ("sandbox", summary.n_steps)
        elif summary.failure_cause == "grading":
            self._failed_so[sample] = ("grading", 0)
        return before is not None and self._failed_so.get(sample) == before

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
        return self.is_stopped or is_satisfied(self.control, graded=self.graded, successful=self.successful)

    def progress(self) -> EnvironmentProgress:
        """Where it stands."""
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
