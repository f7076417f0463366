"""What stands inside the rows: tool calls, cached tokens, what plugins said. Memory does not grow with the run."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from realwork.analysis.plugin_use import PluginUse
from realwork.dataset.read import batches, run_directories
from realwork.dataset.run_directory import plugins_said

_STEP = "steps.list.element"
_CALL = f"{_STEP}.tool_results.list.element"
_COLUMNS = (
    *("environment_id", "fork_step", "plugin_data"),
    *(f"{_STEP}.step_index", f"{_STEP}.cached_tokens", f"{_CALL}.call_status", f"{_CALL}.decision"),
)
MAX_DECISIONS = 1000
"""Most different texts of decisions that are counted apart."""


class Details:
    """Sums over the attempts of an environment; steps taken over from another attempt are in none.

    Attributes:
        calls: tool calls by status.
        decisions: tool calls that plugins looked at, by what they decided.
        cached_tokens: prompt tokens that came from the endpoint's cache, null where it told of none.
        plugins: calls of plugins by their name.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.cached_tokens: int | None = None
        self.plugins: defaultdict[str, PluginUse] = defaultdict(PluginUse)

    def add(self, other: "Details") -> None:
        """Take those of `other` into the sums."""
        self.calls += other.calls
        self.decisions += other.decisions
        for name, said in other.plugins.items():
            self.plugins[name].merge(said)
        if other.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + other.cached_tokens


def details(directory: Path) -> dict[str, Details]:
    """The details of each environment of a run, or of all runs in a `trajectory_output_path`.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    found: defaultdict[str, Details] = defaultdict(Details)
    for batch in batches(directory, _COLUMNS):
        _add_steps(found, batch)
        _add_plugins(found, batch)
    return found


def _add_steps(found: defaultdict[str, Details], batch: pa.RecordBatch) -> None:
    steps = batch.column("steps")
    row_of = pc.list_parent_indices(steps)
    flat = steps.flatten()
    taken_over = pc.fill_null(batch.column("fork_step").take(row_of), 0)
    own = pc.greater_equal(flat.field("step_index"), taken_over)
    names = batch.column("environment_id").take(row_of)
    _add_cached(found, pa.table({"name": names, "cached": flat.field("cached_tokens")}).filter(own))
    results = flat.field("tool_results")
    step_of = pc.list_parent_indices(results)
    calls = results.flatten()
    columns = {"name": names.take(step_of), "status": calls.field("call_status"), "decision": calls.field("decision")}
    _add_calls(found, pa.table(columns).filter(own.take(step_of)))


def _add_cached(found: defaultdict[str, Details], steps: pa.Table) -> None:
    sums = steps.group_by("name").aggregate([("cached", "sum")])
    for name, cached in zip(*(sums.column(each).to_pylist() for each in ("name", "cached_sum")), strict=True):
        if cached is not None:
            found[name].cached_tokens = (found[name].cached_tokens or 0) + cached


def _add_calls(found: defaultdict[str, Details], calls: pa.Table) -> None:
    for each in calls.group_by(["name", "status", "decision"]).aggregate([([], "count_all")]).to_pylist():
        of = found[each["name"]]
        of.calls[each["status"]] += each["count_all"]
        if each["decision"] is not None and (each["decision"] in of.decisions or len(of.decisions) < MAX_DECISIONS):
            of.decisions[each["decision"]] += each["count_all"]


def _add_plugins(found: defaultdict[str, Details], batch: pa.RecordBatch) -> None:
    names, texts = (batch.column(each).to_pylist() for each in ("environment_id", "plugin_data"))
    for name, text in zip(names, texts, strict=True):
        if text != "{}":
            for plugin, said in json.loads(text).items():
                if isinstance(said, dict):
                    found[name].plugins[plugin].add(said)


def run_plugins(directory: Path) -> dict[str, PluginUse]:
    """The calls of plugins between rollouts, which stand in no row, over all runs there.

    Raises:
        InputError: there is no run.
    """
    found: defaultdict[str, PluginUse] = defaultdict(PluginUse)
    for run in run_directories(directory):
        for start in plugins_said(run):
            for name, said in start.items():
                found[name].add(said)
    return found
