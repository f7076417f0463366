"""The metrics of a run: what is told of it, by which names."""

import asyncio
import re
from collections import Counter
from contextlib import suppress

import pytest

from realwork.distributed import metrics
from realwork.distributed.counted import CountedBackends
from realwork.distributed.metrics import METRICS, TAGS, NoMetrics, StoreMetrics, metrics_of
from realwork.errors import SandboxError, StoreError
from realwork.types import Observation, RolloutSummary, Usage
from tests.analysis.records import spec, step
from tests.core.rollouts import SPEC, MemoryBackends, settings

KINDS = {each.name: each for each in METRICS}


class Kept:
    """Keeps what it is told, and refuses what is not in the table."""

    def __init__(self):
        self.counted, self.gauges, self.observed = Counter(), {}, []

    def count(self, name, amount=1.0, **tags):
        assert KINDS[name].kind == "counter"
        self.counted[self.named(name, tags)] += amount

    def set(self, name, value, **tags):
        assert KINDS[name].kind == "gauge"
        self.gauges[self.named(name, tags)] = value

    def observe(self, name, seconds):
        assert KINDS[name].kind == "histogram"
        self.observed.append((name, seconds))

    def named(self, name, tags):
        assert set(tags) == set(KINDS[name].tags)
        return " ".join([name, *tags.values()])


def test_every_name_says_its_unit_and_every_tag_is_explained():
    for each in METRICS:
        assert re.fullmatch(r"realwork_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.name.endswith("_seconds") == (each.kind == "histogram")
        assert list(each.buckets_s) == sorted(each.buckets_s)
        assert bool(each.buckets_s) == (each.kind == "histogram")
    assert {tag for each in METRICS for tag in each.tags} | {"run"} == set(TAGS)


def test_rollouts_are_told_by_their_states():
    kept = Kept()
    metrics.tell_states(kept, {"waiting": 7, "in_flight": 2})
    assert kept.gauges == {"realwork_rollouts waiting": 7, "realwork_rollouts in_flight": 2}


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"status": "completed", "success": True}, "successful none"),
        ({"status": "truncated", "success": False}, "unsuccessful none"),
        ({"status": "failed", "failure_cause": "model"}, "failed model"),
        ({"status": "cancelled", "failure_cause": "cancelled"}, "cancelled cancelled"),
    ],
)
def test_an_attempt_is_counted_by_its_outcome_and_cause(fields, counted):
    kept = Kept()
    summary = RolloutSummary(spec=spec("e", 0, 0, "r"), terminated_reason="completed", **fields)
    metrics.tell_attempt(kept, summary)
    assert kept.counted == {f"realwork_attempts_total {counted}": 1}


def test_a_step_tells_of_its_tokens_its_model_and_each_command_that_ran():
    def answer(status, tool="execute_command"):
        return Observation(call_id=status, tool_name=tool, status=status, duration_s=0.5)

    given = ("ok", "timeout", "invalid", "blocked", "not_executed")
    taken = step(0, llm_s=2.0, observations=(*map(answer, given), answer("ok", "read_file")))
    usage = Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=8)
    kept = Kept()
    metrics.tell_step(kept, taken.model_copy(update={"usage": usage}))
    assert kept.counted == {
        "realwork_steps_total": 1,
        "realwork_tokens_total prompt": 10,
        "realwork_tokens_total cached": 8,
        "realwork_tokens_total completion": 3,
    }
    latencies = [("realwork_model_latency_seconds", 2.0)] + [("realwork_command_latency_seconds", 0.5)] * 2
    assert kept.observed == latencies


def test_a_row_waits_at_its_store_until_it_is_written_or_refused():
    kept = Kept()
    store = StoreMetrics(kept)
    with store.arrived():
        with suppress(StoreError), store.arrived():
            assert kept.gauges == {"realwork_store_waiting_rows": 2}
            raise StoreError("the disk is full")
        assert kept.gauges == {"realwork_store_waiting_rows": 1}
        store.written(size_bytes=100, lag_s=0.25)
    assert kept.gauges == {"realwork_store_waiting_rows": 0}
    assert kept.counted == {"realwork_store_rows_total": 1, "realwork_store_written_bytes_total": 100}
    assert kept.observed == [("realwork_store_lag_seconds", 0.25)]


def test_open_sandboxes_are_counted_also_when_one_fails():
    told = []

    async def opened():
        environment = settings().config.environments[0]
        backends = CountedBackends(MemoryBackends(None), told.append)
        with suppress(SandboxError):
            async with backends.open_sandbox(SPEC, environment), backends.open_sandbox(SPEC, environment):
                raise SandboxError("the engine is gone")

    asyncio.run(opened())
    assert told == [1, 2, 1, 0]


def test_nothing_is_recorded_where_there_is_no_ray():
    assert isinstance(metrics_of("r"), NoMetrics)
