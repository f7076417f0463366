"""What a user sees while a run goes on: a live picture on a terminal, a plain line every few seconds elsewhere."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from realwork.cli.console import errors, seconds, shown
from realwork.cli.tally import Tally
from realwork.schedule import EnvironmentProgress
from realwork.text import visible
from realwork.types import Doing, RolloutSpec, RolloutSummary

if TYPE_CHECKING:
    from realwork.distributed.control import InFlight
    from realwork.distributed.result import RunResult

TELL_EVERY_S = 10.0
PICTURES_PER_S = 2
MAX_ENVIRONMENTS_SHOWN = 12
MAX_ROLLOUTS_SHOWN = 8
BAR_WIDTH = 20
_PHASES = {
    "waiting": "waits",
    "starting": "starts its process",
    "preparing": "prepares its image",
    "booting": "boots its sandbox",
    "asking": "asks the model",
    "acting": "acts",
    "grading": "is graded",
    "writing": "is written",
}


class Progress:
    """An observer of the driver that counts; how it tells of that is left to those below.

    Attributes:
        seen: what those in flight that take longest were doing a moment ago.
        in_flight: trajectory ids.
    """

    looks_at = 0

    def __init__(self, *, every_s: float = TELL_EVERY_S) -> None:
        self._every_s = every_s
        self.tally = Tally()
        self.seen: Sequence[InFlight] = ()
        self.in_flight: set[str] = set()
        self._failed_environments: set[str] = set()
        self._ended = threading.Event()
        self._ticks = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        """See `Observer.started`."""
        self.tally.begin(progress)
        self._begin(output, slots)

    def _begin(self, output: str, slots: int) -> None:
        """Tell that the run begins."""

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            self._tell()

    def _tell(self) -> None:
        """Tell how the run stands."""

    def rollout_started(self, spec: RolloutSpec) -> None:
        """See `Observer.rollout_started`."""
        self.in_flight.add(spec.trajectory_id)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer.rollout_finished`."""
        self.in_flight.discard(summary.spec.trajectory_id)
        self.tally.add(summary, progress)
        if summary.failure_cause is not None:
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

    def looked(self, in_flight: "Sequence[InFlight]") -> None:
        """See `Observer.looked`."""
        self.seen = in_flight

    def doing(self, message: str) -> None:
        """See `Observer.doing`."""
        self.note(message)

    def note(self, message: str) -> None:
        """See `Observer.note`."""
        errors.print(visible(message), markup=False)

    def finished(self, result: "RunResult") -> None:
        """The run has ended so."""


class TextProgress(Progress):
    """For people; `quiet` shows notes only."""

    def __init__(self, *, quiet: bool, every_s: float = TELL_EVERY_S) -> None:
        super().__init__(every_s=every_s)
        self._quiet = quiet
        is_live = errors.is_terminal and not quiet
        live = Live(console=errors, get_renderable=self.picture, refresh_per_second=PICTURES_PER_S)
        self._live = live if is_live else None
        self.looks_at = 0 if self._live is None else MAX_ROLLOUTS_SHOWN

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self.seen = ()
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _begin(self, output: str, slots: int) -> None:
        left = self.tally.to_do
        self.doing(f"{left} rollout{'' if left == 1 else 's'}, {slots} at once. Trajectories go to {shown(output)}")
        if self._live is not None:
            self._live.start()
        elif not self._quiet:
            self._ticks.start()

    def doing(self, message: str) -> None:
        """See `Observer.doing`."""
        if not self._quiet:
            self.note(message)

    def _tell(self) -> None:
        errors.print(self._line(), markup=False)

    def _line(self) -> str:
        tally = self.tally
        tokens = tally.prompt_tokens + tally.completion_tokens
        left_s = tally.left_s
        parts = [
            f"{tally.done}/{tally.to_do} rollouts",
            f"{len(self.in_flight)} in flight",
            f"{tally.successful}/{tally.graded} successful",
            f"{tally.rollouts_per_s:.2f}/s",
            f"{tokens} tokens" if tokens else "",
            f"{tally.cost_usd:.4f} USD" if tally.cost_usd is not None else "",
            *(f"{count} failed: {cause}" for cause, count in [*tally.causes.items()]),
            f"{seconds(tally.elapsed_s)} elapsed",
            f"about {seconds(left_s)} left" if left_s is not None else "",
        ]
        return ", ".join(part for part in parts if part)

    def picture(self) -> Group:
        """What a terminal shows now."""
        parts = [_environments([*self.tally.environments.values()])]
        if seen := self.seen:
            parts += [_rollouts(seen, len(self.in_flight))]
        return Group(*parts, Text(self._line()))


def _environments(every: list[EnvironmentProgress]) -> Table:
    """Those that are being played, then those that have ended last, then those that come next."""
    table = Table("Environment", "", "Done", "Successful", "Failed", "In flight", "Waiting", box=None, expand=False)
    busy = [each for each in every if each.in_flight]
    ended = [each for each in reversed(every) if each.done == each.planned]
    others = [each for each in every if not each.in_flight and each.done < each.planned]
    chosen = {each.environment_id for each in [*busy, *ended, *others][:MAX_ENVIRONMENTS_SHOWN]}
    for each in every:
        if each.environment_id in chosen:
            bar = ProgressBar(total=each.planned, completed=each.done, width=BAR_WIDTH)
            counts = (each.successful, each.failed, each.in_flight, each.waiting)
            name = Text(visible(each.environment_id), overflow="ellipsis", no_wrap=True)
            table.add_row(name, bar, f"{each.done}/{each.planned}", *map(str, counts))
    if len(every) > len(chosen):
        table.add_row(f"and {len(every) - len(chosen)} more")
    return table


def _rollouts(seen: "Sequence[InFlight]", in_flight: int) -> Table:
    table = Table("Rollout", "Node", "For", "Step", "Is doing", "Since", box=None, expand=False)
    for each in seen:
        rollout = visible(each.trajectory_id.partition(":")[2])
        since = seconds(each.doing.seconds) if each.doing is not None and each.doing.seconds else ""
        step = str(each.doing.step or "") if each.doing is not None else ""
        name, what = Text(rollout, no_wrap=True), Text(said(each.doing), overflow="ellipsis", no_wrap=True)
        table.add_row(name, Text(visible(each.node)), seconds(each.seconds), step, what, since)
    if in_flight > len(seen):
        table.add_row(f"and {in_flight - len(seen)} more")
    return table


def said(doing: Doing | None) -> str:
    """What a rollout is doing, on one line."""
    if doing is None:
        return "gives no answer"
    if doing.detail:
        return "$ " + " ".join(visible(doing.detail).split())
    return _PHASES[doing.phase]
