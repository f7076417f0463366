"""What a run tells while it goes on, and how it ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from realwork.distributed.control import InFlight
from realwork.schedule import EnvironmentProgress, Schedule
from realwork.types import Record, RolloutSpec, RolloutSummary

HIGH_USAGE_TOKENS = 100_000


class Observer(Protocol):
    """Is told what happens, in the driver's process; must not block.

    Attributes:
        looks_at: of how many rollouts in flight it wants to see what they are doing, every second.
    """

    looks_at: int

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        """The run begins, with at most `slots` rollouts at once; where to, and how each environment stands."""

    def rollout_started(self, spec: RolloutSpec) -> None:
        """An attempt begins."""

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """An attempt has its row; where its environment stands now."""

    def looked(self, in_flight: Sequence[InFlight]) -> None:
        """What those in flight that take longest are doing, at most `looks_at` of them."""

    def doing(self, message: str) -> None:
        """Something that takes a while begins."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


class Notices:
    """What is said once of a run, however many rollouts show it; the rows say it every time."""

    def __init__(self, observer: Observer, *, warns_of_usage: bool) -> None:
        self._observer = observer
        self._warns_of_usage = warns_of_usage
        self._failing_plugins: set[str] = set()

    def tell_of(self, summary: RolloutSummary) -> None:
        """Say what `summary` shows for the first time."""
        tokens = summary.prompt_tokens + summary.completion_tokens
        if self._warns_of_usage and tokens > HIGH_USAGE_TOKENS:
            self._warns_of_usage = False
            self._observer.note(f"warning: {summary.spec.trajectory_id} used {tokens} tokens")
        for name, error in summary.plugin_errors.items():
            if name not in self._failing_plugins:
                self._failing_plugins.add(name)
                self._observer.note(f"warning: plugin {name} failed in {summary.spec.trajectory_id}: {error}")


class RunResult(Record):
    """How a run ended.

    Attributes:
        failures: rollouts without a grade that get no new attempt, by cause.
        aborted: why the run could not go on, null if it did.
    """

    run_id: str
    directory: str
    environments: tuple[EnvironmentProgress, ...]
    failures: dict[str, int]
    interrupted: bool = False
    aborted: str | None = None
    duration_s: float

    @property
    def exit_code(self) -> int:
        """0: every planned rollout is graded or was made unnecessary; 1: some are not; 130: interrupted."""
        if self.interrupted:
            return 130
        done = all(each.graded + each.skipped == each.planned for each in self.environments)
        return 0 if done and self.aborted is None else 1


def finished_result(schedule: Schedule, *, run_id: str, directory: Path) -> RunResult:
    """The result of a run of which nothing is left to play."""
    environments = tuple(schedule.progress())
    return RunResult(run_id=run_id, directory=str(directory), environments=environments, failures={}, duration_s=0.0)
