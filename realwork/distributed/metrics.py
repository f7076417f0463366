"""The metrics of runs, which Ray exports to Prometheus: their table, and the one place that records them.

Guarantees: a series is told apart by run, by what its metric's tags say and by the labels of Ray (node and process),
never by a rollout or an environment; nothing is recorded where there is no Ray.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

from ray.util import metrics as ray_metrics

from realwork.distributed.cluster import is_connected
from realwork.types import Observation, RolloutSummary, Step

COMMANDS = "execute_command"
RAN = ("ok", "error", "timeout")
MODEL_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
COMMAND_S = (0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0)
STORE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metric(NamedTuple):
    """One row of the table.

    Attributes:
        name: without the `ray_` that Ray puts before it.
        tags: besides `run`.
        buckets_s: upper bounds of a histogram's buckets, in seconds.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()
    buckets_s: tuple[float, ...] = ()


METRICS = (
    Metric("realwork_rollouts", "gauge", "Rollouts of the run that are now in each state.", ("state",)),
    Metric("realwork_attempts_total", "counter", "Attempts that have ended.", ("outcome", "cause")),
    Metric("realwork_steps_total", "counter", "Steps that agents have taken."),
    Metric("realwork_tokens_total", "counter", "Tokens that endpoints have reported.", ("kind",)),
    Metric("realwork_model_latency_seconds", "histogram", "From a question to its accepted reply.", (), MODEL_S),
    Metric("realwork_command_latency_seconds", "histogram", "Commands of agents, from begin to end.", (), COMMAND_S),
    Metric("realwork_containers", "gauge", "Sandboxes that a process of rollouts has open now."),
    Metric("realwork_store_lag_seconds", "histogram", "From a row's arrival at its store to the disk.", (), STORE_S),
    Metric("realwork_store_waiting_rows", "gauge", "Rows that have arrived at a store and are not on the disk yet."),
    Metric("realwork_store_rows_total", "counter", "Rows that are on the disk."),
    Metric("realwork_store_written_bytes_total", "counter", "What these rows were handed over in, packed."),
)
TAGS = {
    "run": "the run's id",
    "state": "`waiting`, `in_flight`, `successful`, `unsuccessful`, `failed`, `unnecessary` or `withheld`",
    "outcome": "`successful`, `unsuccessful`, `failed` or `cancelled`",
    "cause": "why there is no grade: a `failure_cause`, or `none`",
    "kind": "`prompt`, of which `cached` were in a cache, or `completion`",
}


class Metrics(Protocol):
    """Takes what is measured in this process, by the names of the table."""

    def count(self, name: str, amount: float = 1.0, **tags: str) -> None:
        """Add to a counter; adding nothing is no error."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, seconds: float) -> None:
        """Put a value into a histogram."""


class NoMetrics:
    """Takes everything and keeps nothing."""

    def count(self, name: str, amount: float = 1.0, **tags: str) -> None:
        """See `Metrics`."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """See `Metrics`."""

    def observe(self, name: str, seconds: float) -> None:
        """See `Metrics`."""


class RayMetrics:
    """Hands on to Ray; a metric is made when this process first has something for it."""

    def __init__(self, run_id: str) -> None:
        self._run = {"run": run_id}
        self._made: dict[str, Any] = {}

    def count(self, name: str, amount: float = 1.0, **tags: str) -> None:
        """See `Metrics`."""
        if amount > 0:
            self._metric(name).inc(amount, tags)

    def set(self, name: str, value: float, **tags: str) -> None:
        """See `Metrics`."""
        self._metric(name).set(value, tags)

    def observe(self, name: str, seconds: float) -> None:
        """See `Metrics`."""
        self._metric(name).observe(seconds)

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(next(each for each in METRICS if each.name == name), self._run)
        return self._made[name]


def _made(metric: Metric, run: dict[str, str]) -> Any:
    tags = ("run", *metric.tags)
    made: Any
    match metric.kind:
        case "counter":
            made = ray_metrics.Counter(metric.name, metric.meaning, tags)
        case "gauge":
            made = ray_metrics.Gauge(metric.name, metric.meaning, tags)
        case "histogram":
            made = ray_metrics.Histogram(metric.name, metric.meaning, list(metric.buckets_s), tags)
    return made.set_default_tags(run)


def metrics_of(run_id: str) -> Metrics:
    """What takes the metrics of a run in this process."""
    return RayMetrics(run_id) if is_connected() else NoMetrics()


def tell_states(metrics: Metrics, states: Mapping[str, int]) -> None:
    """Set how many rollouts are in each state."""
    for state, count in states.items():
        metrics.set("realwork_rollouts", count, state=state)


def tell_attempt(metrics: Metrics, summary: RolloutSummary) -> None:
    """Count an attempt that has ended."""
    outcome = {True: "successful", False: "unsuccessful", None: "failed"}[summary.success]
    if summary.failure_cause == "cancelled":
        outcome = "cancelled"
    metrics.count("realwork_attempts_total", outcome=outcome, cause=summary.failure_cause or "none")


def tell_step(metrics: Metrics, step: Step) -> None:
    """Tell of a step that an agent has taken: its tokens, and what model and commands took."""
    usage = step.usage
    metrics.count("realwork_steps_total")
    metrics.count("realwork_tokens_total", usage.prompt_tokens or 0, kind="prompt")
    metrics.count("realwork_tokens_total", usage.cached_tokens or 0, kind="cached")
    metrics.count("realwork_tokens_total", usage.completion_tokens or 0, kind="completion")
    metrics.observe("realwork_model_latency_seconds", step.llm_s)
    for seconds in _commands_s(step.observations):
        metrics.observe("realwork_command_latency_seconds", seconds)


def _commands_s(observations: Sequence[Observation]) -> list[float]:
    return [each.duration_s for each in observations if each.tool_name == COMMANDS and each.status in RAN]


class StoreMetrics:
    """The metrics of one store of a run."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting = 0

    @contextmanager
    def arrived(self) -> Iterator[None]:
        """A row waits for the disk for the length of the block."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        self._waiting += by
        self._metrics.set("realwork_store_waiting_rows", self._waiting)

    def written(self, *, size_bytes: int, lag_s: float) -> None:
        """A row is on the disk, so long after it arrived."""
        self._metrics.observe("realwork_store_lag_seconds", lag_s)
        self._metrics.count("realwork_store_rows_total")
        self._metrics.count("realwork_store_written_bytes_total", size_bytes)
