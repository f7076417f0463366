"""What has happened in a run so far, counted from what its driver tells; pure but for the clock."""

import time
from collections import Counter
from collections.abc import Iterable

from realwork.schedule import EnvironmentProgress
from realwork.types import RolloutSummary


class Tally:
    """Counts of one run; read from other threads, too.

    Attributes:
        environments: how each stands, by its id.
        graded, successful: rollouts, those of earlier starts included.
        causes: attempts of this start that failed, by cause.
        cost_usd: null until an endpoint, or the run file's prices, said what something costs.
    """

    def __init__(self) -> None:
        self.environments: dict[str, EnvironmentProgress] = {}
        self.causes: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.cost_usd: float | None = None
        self.graded = self.successful = 0
        self._began = time.monotonic()
        self._planned = self._done = self._done_before = 0

    def begin(self, progress: Iterable[EnvironmentProgress]) -> None:
        """The run begins, with its environments as they stand; what is done already is not counted again."""
        for each in progress:
            self._note(each)
        self._began = time.monotonic()
        self._planned = sum(each.planned for each in self.environments.values())
        self._done_before = self._done

    def add(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """An attempt has ended, and its environment stands so now."""
        self._note(progress)
        self.prompt_tokens += summary.prompt_tokens
        self.completion_tokens += summary.completion_tokens
        if summary.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + summary.cost_usd
        if summary.failure_cause is not None:
            self.causes[summary.failure_cause] += 1

    def _note(self, progress: EnvironmentProgress) -> None:
        before = self.environments.get(progress.environment_id)
        self.environments[progress.environment_id] = progress
        self._done += progress.done - (before.done if before else 0)
        self.graded += progress.graded - (before.graded if before else 0)
        self.successful += progress.successful - (before.successful if before else 0)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def to_do(self) -> int:
        """Rollouts that this start had to play."""
        return self._planned - self._done_before

    @property
    def done(self) -> int:
        """Rollouts, of those, of which nothing is left to do."""
        return self._done - self._done_before

    @property
    def rollouts_per_s(self) -> float:
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at this rate, null before the first rollout has ended and after the last."""
        done, left = self.done, self.to_do - self.done
        return self.elapsed_s / done * left if done and left > 0 else None
