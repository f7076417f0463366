"""What a user sees while a run goes on: a live table on a terminal, a plain line every few seconds elsewhere."""

import time
from collections import Counter
from pathlib import Path
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
        self._live = None if quiet or not errors.is_terminal else Live(console=errors, get_renderable=self._table)
        self._planned = self._finished = self._tokens = 0
        self._began = time.monotonic()
        self._last_line = 0.0
        self._in_flight: set[str] = set()
        self._causes: Counter[str] = Counter()
        self._environments: list[EnvironmentProgress] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def started(self, directory: Path, planned: int, slots: int) -> None:
        """See `Observer.started`."""
        self._planned, self._began = planned, time.monotonic()
        if not self._quiet:
            self.note(f"{planned} rollouts, {slots} at once. Trajectories go to {shown(directory)}")
        if self._live is not None:
            self._live.start()

    def rollout_started(self, spec: RolloutSpec) -> None:
        """See `Observer.rollout_started`."""
        self._in_flight.add(spec.trajectory_id)

    def rollout_finished(self, summary: RolloutSummary, progress: list[EnvironmentProgress]) -> None:
        """See `Observer.rollout_finished`."""
        self._in_flight.discard(summary.spec.trajectory_id)
        self._environments = progress
        self._finished = sum(each.graded + each.failed for each in progress)
        self._tokens += summary.prompt_tokens + summary.completion_tokens
        if summary.failure_cause is not None:
            self._causes[summary.failure_cause] += 1
            if summary.failure_cause != "cancelled":
                self.note(f"{summary.spec.trajectory_id} failed ({summary.failure_cause}): {summary.error_message}")
        if self._live is None and not self._quiet and time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            errors.print(self._line(), markup=False)

    def note(self, message: str) -> None:
        """See `Observer.note`."""
        errors.print(message, markup=False)

    def _line(self) -> str:
        elapsed_s = time.monotonic() - self._began
        graded = sum(each.graded for each in self._environments)
        successful = sum(each.successful for each in self._environments)
        parts = [
            f"{self._finished}/{self._planned} rollouts",
            f"{len(self._in_flight)} in flight",
            f"{successful}/{graded} successful",
            f"{self._finished / elapsed_s:.2f}/s" if elapsed_s > 0 else "",
            f"{self._tokens} tokens" if self._tokens else "",
            *(f"{count} failed: {cause}" for cause, count in self._causes.items()),
            f"{seconds(elapsed_s)} elapsed",
            self._time_left(elapsed_s),
        ]
        return ", ".join(part for part in parts if part)

    def _time_left(self, elapsed_s: float) -> str:
        if not self._finished or self._finished >= self._planned:
            return ""
        return f"about {seconds(elapsed_s / self._finished * (self._planned - self._finished))} left"

    def _table(self) -> Group:
        table = Table("Environment", "Done", "In flight", "Waiting", "Successful", "Failed", box=None)
        for each in self._environments[:MAX_ENVIRONMENTS_SHOWN]:
            done = f"{each.graded + each.failed + each.skipped}/{each.planned}"
            counts = (each.in_flight, each.waiting, each.successful, each.failed)
            table.add_row(Text(each.environment_id), done, *map(str, counts))
        if len(self._environments) > MAX_ENVIRONMENTS_SHOWN:
            table.add_row(f"and {len(self._environments) - MAX_ENVIRONMENTS_SHOWN} more")
        return Group(table, Text(self._line()))
