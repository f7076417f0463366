"""What a user sees while a run goes on: a live table on a terminal, a plain line every few seconds elsewhere."""

import threading
import time
from collections import Counter
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from realwork.cli.console import errors, seconds, shown
from realwork.schedule import EnvironmentProgress
from realwork.types import RolloutSpec, RolloutSummary

PLAIN_LINE_EVERY_S = 5.0
MAX_ENVIRONMENTS_SHOWN = 20


class Progress:
    """An observer of the driver that shows how the run goes; `quiet` shows notes only."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._planned = self._tokens = self._finished_before = 0
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._lines = threading.Thread(target=self._print_lines, daemon=True)
        self._in_flight: set[str] = set()
        self._failed_environments: set[str] = set()
        self._causes: Counter[str] = Counter()
        self._environments: dict[str, EnvironmentProgress] = {}
        self._live = None if quiet or not errors.is_terminal else Live(console=errors, get_renderable=self._table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        """See `Observer.started`."""
        self._environments = {each.environment_id: each for each in progress}
        self._planned, self._began = sum(each.planned for each in progress), time.monotonic()
        self._finished_before = self._finished()
        left = self._planned - self._finished_before
        self.doing(f"{left} rollout{'' if left == 1 else 's'}, {slots} at once. Trajectories go to {shown(output)}")
        if self._live is not None:
            self._live.start()
        elif not self._quiet:
            self._lines.start()

    def _print_lines(self) -> None:
        while not self._ended.wait(PLAIN_LINE_EVERY_S):
            errors.print(self._line(), markup=False)

    def rollout_started(self, spec: RolloutSpec) -> None:
        """See `Observer.rollout_started`."""
        self._in_flight.add(spec.trajectory_id)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer.rollout_finished`."""
        self._in_flight.discard(summary.spec.trajectory_id)
        self._environments[progress.environment_id] = progress
        self._tokens += summary.prompt_tokens + summary.completion_tokens
        if summary.failure_cause is not None:
            self._causes[summary.failure_cause] += 1
            self._tell_of_failure(summary)

    def _tell_of_failure(self, summary: RolloutSummary) -> None:
        """Say why; what fails a whole environment is said once, and what ends the run at its end."""
        environment_id = summary.spec.environment_id
        if summary.aborts_run:
            return
        if not summary.fails_environment:
            if summary.failure_cause != "cancelled":
                self.note(f"{summary.spec.trajectory_id} failed ({summary.failure_cause}): {summary.error_message}")
        elif environment_id not in self._failed_environments:
            self._failed_environments.add(environment_id)
            self.note(f"No rollout of {environment_id} can be played: {summary.error_message}")

    def doing(self, message: str) -> None:
        """See `Observer.doing`."""
        if not self._quiet:
            self.note(message)

    def note(self, message: str) -> None:
        """See `Observer.note`."""
        errors.print(message, markup=False)

    def _line(self) -> str:
        elapsed_s = time.monotonic() - self._began
        finished = self._finished() - self._finished_before
        graded = sum(each.graded for each in list(self._environments.values()))
        successful = sum(each.successful for each in list(self._environments.values()))
        parts = [
            f"{finished}/{self._planned - self._finished_before} rollouts",
            f"{len(self._in_flight)} in flight",
            f"{successful}/{graded} successful",
            f"{finished / elapsed_s:.2f}/s" if elapsed_s > 0 else "",
            f"{self._tokens} tokens" if self._tokens else "",
            *(f"{count} failed: {cause}" for cause, count in list(self._causes.items())),
            f"{seconds(elapsed_s)} elapsed",
            self._time_left(finished, elapsed_s),
        ]
        return ", ".join(part for part in parts if part)

    def _finished(self) -> int:
        return sum(
            each.graded + each.failed + each.skipped + each.withheld for each in list(self._environments.values())
        )

    def _time_left(self, finished: int, elapsed_s: float) -> str:
        left = self._planned - self._finished_before - finished
        return f"about {seconds(elapsed_s / finished * left)} left" if finished and left > 0 else ""

    def _table(self) -> Group:
        table = Table("Environment", "Done", "In flight", "Waiting", "Successful", "Failed", box=None)
        for each in list(self._environments.values())[-MAX_ENVIRONMENTS_SHOWN:]:
            done = f"{each.done}/{each.planned}"
            counts = (each.in_flight, each.waiting, each.successful, each.failed)
            table.add_row(Text(each.environment_id), done, *map(str, counts))
        if len(self._environments) > MAX_ENVIRONMENTS_SHOWN:
            table.add_row(f"and {len(self._environments) - MAX_ENVIRONMENTS_SHOWN} more")
        return Group(table, Text(self._line()))
