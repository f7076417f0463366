"""Plots, as the traces that Plotly draws; a trace names its role on the page, which has the colours. Pure."""

from collections.abc import Sequence
from html import escape
from typing import Any

from realwork.analysis.curves import Curves
from realwork.types import Record
from realwork.web.text import visible

Trace = dict[str, Any]
"""What Plotly takes; `role` is a colour of the page."""


_UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))
_FEWEST = 2


class Chart(Record):
    """One plot.

    Attributes:
        says: what it shows, for those who do not see it.
        traces: for Plotly.
        is_share: whether the values are shares, from 0 to 100 %.
    """

    title: str
    says: str
    traces: list[Trace]
    x_title: str
    is_share: bool = False


def run_charts(curves: Curves) -> list[Chart]:
    """The plots of one run; none before its first row."""
    if not curves.time_s:
        return []
    unit, seconds = next(each for each in _UNITS if each[1] * _FEWEST <= curves.time_s[-1] or each[1] == 1)
    times = [value / seconds for value in curves.time_s]
    charts = [_progress(curves, times, unit), *_success(curves, times, unit), _tokens(curves, times, unit)]
    return [chart for chart in charts if chart.traces]


def comparison(runs: Sequence[tuple[str, Curves]]) -> list[Chart]:
    """Success and reward of several runs in one plot each, over the rollouts that they have graded."""
    charts = []
    for title, name in (("Success rate", "success_rate"), ("Mean reward", "mean_reward")):
        traces = []
        for place, (run, curves) in enumerate(runs):
            graded = [passed + failed for passed, failed in zip(curves.passed, curves.failed, strict=True)]
            traces.append(_line(_name(run), graded, getattr(curves, name), f"series-{place % 6 + 1}"))
        last = [f"{visible(run)} {_said(getattr(curves, name))}" for run, curves in runs]
        says = f"{title} of the latest rollouts: {'; '.join(last)}."
        is_share = all(_is_share(getattr(curves, name)) for _, curves in runs)
        charts.append(Chart(title=title, says=says, traces=traces, x_title="graded rollouts", is_share=is_share))
    return charts


def _progress(curves: Curves, times: Sequence[float], unit: str) -> Chart:
    done = curves.passed[-1], curves.failed[-1], curves.ungraded[-1]
    says = f"After {times[-1]:.1f} {unit} {done[0]:,} rollouts passed, {done[1]:,} failed, {done[2]:,} have no grade."
    names = ("passed", "failed", "ungraded")
    titles = {"ungraded": "no grade"}
    traces = [
        {
            **_line(titles.get(name, name), times, getattr(curves, name), name),
            "stackgroup": "all",
            "line": {"width": 1, "shape": "hv"},
        }
        for name, count in zip(names, done, strict=True)
        if count
    ]
    return Chart(title="Rollouts", says=says, traces=traces, x_title=unit)


def _success(curves: Curves, times: Sequence[float], unit: str) -> list[Chart]:
    """Both in one plot where rewards lie between 0 and 1, else one for each; none before the first grade."""
    if _last(curves.success_rate) is None:
        return []
    window = f"over the latest {curves.window} graded rollouts"
    rate = _line("success rate", times, curves.success_rate, "passed")
    reward = _line("mean reward", times, curves.mean_reward, "series-1")
    said = f"Success rate {_said(curves.success_rate)}", f"mean reward {_said(curves.mean_reward)} {window}."
    if _is_share(curves.mean_reward):
        says = " and ".join(said)
        return [Chart(title="Success and reward", says=says, traces=[rate, reward], x_title=unit, is_share=True)]
    return [
        Chart(title="Success", says=f"{said[0]} {window}.", traces=[rate], x_title=unit, is_share=True),
        Chart(title="Reward", says=said[1].capitalize(), traces=[reward], x_title=unit),
    ]


def _tokens(curves: Curves, times: Sequence[float], unit: str) -> Chart:
    says = f"{curves.tokens[-1]:,} tokens spent."
    traces = [_line("tokens", times, curves.tokens, "series-1")] if curves.tokens[-1] else []
    if curves.cost_usd is not None:
        says += f" {curves.cost_usd[-1]:.2f} US dollars."
        cost = _line("US dollars", times, curves.cost_usd, "series-2")
        traces.append(cost | {"yaxis": "y2", "line": {"dash": "dot"}})
    return Chart(title="Tokens and cost", says=says, traces=traces, x_title=unit)


def _line(name: str, x: Sequence[float], y: Sequence[float | None], role: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "name": name,
        "x": [round(value, 5) for value in x],
        "y": [None if value is None else round(value, 5) for value in y],
        "role": role,
    }


def _name(run: str) -> str:
    """Plotly takes some tags in names for what they are."""
    return escape(visible(run))


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _is_share(values: Sequence[float | None]) -> bool:
    return all(value is None or 0 <= value <= 1 for value in values)


def _said(values: Sequence[float | None]) -> str:
    """The last value, as a share where all are."""
    last = _last(values)
    return "unknown" if last is None else f"{last:.0%}" if _is_share(values) else f"{last:.2f}"
