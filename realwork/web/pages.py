"""The pages as HTML; no HTTP here.

Guarantees: every value that a template prints is escaped; texts of agents are made visible first.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from realwork.analysis.filters import FIELDS
from realwork.analysis.listing import Asked, values
from realwork.analysis.overview import Verdict
from realwork.errors import InputError, StoreError, blame
from realwork.web import numbers
from realwork.web.charts import comparison, run_charts
from realwork.web.highlight import highlighted
from realwork.web.places import whole_text
from realwork.web.rollout_page import rollout_view
from realwork.web.rollout_views import TestView
from realwork.web.runs import Run
from realwork.web.text import visible

CHUNK = 100
"""Rows of a list that are fetched at once."""
_ENVIRONMENTS = 50
_IN_FLIGHT = 50
_KS = (1, 2, 4, 8, 16)
_CHIPS = (
    ("All", ""),
    ("Passed", "outcome:passed"),
    ("Failed", "outcome:failed"),
    ("No grade", "outcome:ungraded"),
    ("Cut by a limit", "status:truncated"),
    ("One per rollout", "counts:true"),
)
_SUGGESTED = ("environment_id", "terminated_reason", "failure_cause", "error_type", "model", "node_id")


def templates() -> Environment:
    """The templates with what they call."""
    found = Environment(
        loader=PackageLoader("realwork.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters |= {
        "number": numbers.number,
        "percent": numbers.percent,
        "amount": numbers.amount,
        "seconds": numbers.seconds,
        "dollars": numbers.dollars,
        "moment": numbers.moment,
        "file_size": numbers.file_size,
        "short": _short,
        "visible": visible,
        "highlighted": highlighted,
    }
    return found


class Pages:
    """Writes the pages."""

    def __init__(self) -> None:
        self._templates = templates()

    def runs(self, runs: Sequence[Run]) -> str:
        """All runs, side by side."""
        shown = [(run, run.overview()) for run in runs if run.problem is None]
        charts = comparison([(run.name, each.curves) for run, each in shown if each.graded])
        broken = [run for run in runs if run.problem is not None]
        return self._render("runs.html", runs=shown, broken=broken, charts=charts, version=version_of(runs))

    def run(self, run: Run) -> str:
        """One run in numbers."""
        shown = run.overview()
        running = run.index.running[:_IN_FLIGHT]
        until = datetime.now(UTC) if run.is_played else shown.ended_at
        charts = run_charts(shown.curves)
        return self._render("run.html", run=run, o=shown, until=until, charts=charts, running=running)

    def environments(self, run: Run, show: str, page: int) -> str:
        """The environments that have groups of the kind that is to be shown; others of their groups are left out."""
        every = run.environments()
        counts = dict.fromkeys(("all", *get_args(Verdict)), 0)
        for verdict in (group.verdict for each in every for group in each.groups):
            counts["all"] += 1
            counts[verdict] += 1
        chosen = []
        for each in every:
            groups = [group for group in each.groups if show in ("all", group.verdict)]
            if groups:
                chosen.append(each.model_copy(update={"groups": groups}))
        pages = max(1, -(-len(chosen) // _ENVIRONMENTS))
        page = min(max(page, 1), pages)
        return self._render(
            "environments.html",
            run=run,
            environments=chosen[(page - 1) * _ENVIRONMENTS : page * _ENVIRONMENTS],
            total=len(every),
            counts=counts,
            show=show,
            page=page,
            pages=pages,
            ks=[k for k in _KS if any(k in each.pass_at_k for each in every)],
        )

    def rollouts(self, run: Run, asked: Asked) -> str:
        """The list of attempts, its first rows."""
        problem, lines, count = "", [], 0
        try:
            listing = run.listing(asked)
            lines, count = listing.lines(0, CHUNK), len(listing)
        except InputError as error:
            problem = str(error)
        return self._render(
            "rollouts.html",
            run=run,
            asked=asked,
            lines=lines,
            begin=0,
            count=count,
            total=run.index.table.num_rows,
            problem=problem,
            chunk=CHUNK,
            fields=[*FIELDS],
            chips=_CHIPS,
            terms=_terms(run),
        )

    def lines(self, run: Run, asked: Asked, begin: int) -> str:
        """The next rows of the list.

        Raises:
            InputError: what was asked for cannot be understood.
        """
        lines = run.listing(asked).lines(max(begin, 0), CHUNK)
        return self._render("lines.html", run=run, asked=asked, lines=lines, begin=begin)

    def rollout(self, run: Run, trajectory_id: str, asked: Asked) -> str | None:
        """One attempt; null if there is none of that id."""
        row = run.index.row(trajectory_id)
        if row is None:
            return None
        with blame(StoreError, f"{trajectory_id} cannot be shown"):
            view = rollout_view(row)
        place, before, after, listed = None, None, None, 0
        with suppress(InputError):  # the page does not need the list that it was opened from
            listing = run.listing(asked)
            place, before, after = listing.neighbours(trajectory_id)
            listed = len(listing)
        return self._render(
            "rollout.html",
            run=run,
            r=view,
            failing=_failing(view.tests),
            group=run.group(view.environment_id, view.group_id),
            is_unfinished=any(each.spec.trajectory_id == trajectory_id for each in run.index.running),
            place=place,
            listed=listed,
            up=run.address("rollouts", **asked.model_dump()),
            before=before and run.address("rollout", id=before, **asked.model_dump()),
            after=after and run.address("rollout", id=after, **asked.model_dump()),
        )

    def text(self, run: Run, trajectory_id: str, at: str) -> str | None:
        """A whole text of an attempt as it was written; null if there is none in that place."""
        row = run.index.row(trajectory_id)
        return None if row is None else whole_text(row, at)

    def message(self, title: str, said: str) -> str:
        """A page that says why there is no other."""
        return self._render("message.html", title=title, said=said)

    def _render(self, template: str, **values: object) -> str:
        return self._templates.get_template(template).render(**values)


def version_of(runs: Sequence[Run]) -> str:
    """What changes when one of the runs does."""
    return " ".join(run.problem or run.version for run in runs)


def _failing(tests: Sequence[TestView]) -> list[TestView]:
    """The tests that have not passed: cases where there are any, as they say more than their command."""
    bad = [test for test in tests if test.status not in ("passed", "skipped")]
    return [test for test in bad if test.kind == "case"] or bad


def _terms(run: Run) -> list[str]:
    """Terms that are offered: what stands in columns of few values, unless it could not be seen as it is."""
    names = {column: field for field, column in FIELDS.items()}
    found = []
    for column in _SUGGESTED:
        there = [each for each in values(run.index, column) if visible(each) == each and '"' not in each]
        found += [f'{names[column]}:"{each}"' if " " in each else f"{names[column]}:{each}" for each in there[:20]]
    return found


def _short(value: float) -> str:
    """A reward in the smallest space: 1, 0, .5, .33."""
    return f"{value:.2f}".rstrip("0").rstrip(".").removeprefix("0") or "0" if 0 <= value <= 1 else f"{value:.1f}"
