"""What a run may ask of its endpoint, with a clock made by hand."""

import asyncio
import time

import pytest

from realwork.config import LlmConfig
from realwork.model.budget import FIRST_ESTIMATE, Budget, Pace, Used, used_by
from realwork.model.gate import SPREAD_S, LocalGate
from realwork.types import Usage


def budget(before=None, **config):
    return Budget(LlmConfig(**config), before or Used())


def test_requests_are_spread_evenly_over_the_minute():
    pace, waits = Pace(30), []
    for _ in range(4):
        waits.append(pace.wait_s(100.0))
        pace.reserve(100.0, 1)
    assert waits == pytest.approx([0, 2, 4, 6])
    assert pace.wait_s(200.0) == 0


def test_what_is_not_bounded_never_waits():
    free = budget()
    assert [free.reserve(0.0, within_s=9.0) for _ in range(100)] == [0.0] * 100
    assert free.spent() is None


def test_tokens_are_charged_by_an_estimate_and_corrected_by_what_was_used():
    each = budget(tokens_per_minute=60_000)
    assert each.reserve(0.0, within_s=99.0) == 0
    each.count("a", Used(replies=1, tokens=10_000))
    assert each.reserve(0.0, within_s=99.0) == pytest.approx(10.0)
    assert each.reserve(0.0, within_s=99.0) == pytest.approx(20.0), "the mean of the replies is the estimate now"


def test_no_minute_has_more_tokens_than_allowed_once_their_size_is_known():
    each, now, used, begun = budget(tokens_per_minute=6000), 0.0, Used(), []
    for _ in range(50):
        now += each.reserve(now, within_s=99.0)
        begun.append(now)
        used += Used(replies=1, tokens=500)
        each.count("a", used)
    assert FIRST_ESTIMATE > 500
    for start in begun[2:]:
        assert sum(500 for at in begun if start <= at < start + 60) <= 6000 + 500


@pytest.mark.parametrize(("tokens", "free_after_s"), [(10_000, 600.0), (100, 6.0), (1_000, 60.0)])
def test_requests_under_way_at_once_are_each_corrected_by_what_was_taken_for_them(tokens, free_after_s):
    each = budget(tokens_per_minute=100_000)
    for _ in range(100):
        each.reserve(0.0, within_s=99.0)
    for client in range(100):
        each.count(str(client), Used(replies=1, tokens=tokens))
    assert each.reserve(0.0, within_s=0.0) == pytest.approx(free_after_s)


def test_who_cannot_wait_takes_nothing():
    each = budget(requests_per_minute=10)
    assert each.reserve(0.0, within_s=5.0) == 0
    assert [each.reserve(0.0, within_s=5.0) for _ in range(50)] == [6.0] * 50
    assert each.reserve(6.0, within_s=5.0) == 0


def test_what_is_told_twice_or_late_counts_once():
    each = budget(max_run_tokens=100)
    each.count("a", Used(replies=2, tokens=60))
    each.count("a", Used(replies=1, tokens=30))
    each.count("a", Used(replies=2, tokens=60))
    each.count("b", Used(replies=1, tokens=10))
    assert each.used == Used(replies=3, tokens=70)
    assert each.spent() is None
    each.count("b", Used(replies=2, tokens=40))
    assert "max_run_tokens (100) is used up: 100 tokens" in each.spent()


def test_what_an_earlier_start_used_counts():
    each = budget(Used(replies=9, tokens=5, cost_usd=1.5), max_run_cost_usd=2.0)
    assert each.spent() is None
    each.count("a", Used(replies=1, cost_usd=0.5))
    assert "max_run_cost_usd (2) is used up: 2.00 USD" in each.spent()


def test_what_an_endpoint_does_not_tell_is_not_counted():
    assert used_by(Usage(prompt_tokens=3, completion_tokens=None)) == Used(replies=1, tokens=3, unpriced=1)
    assert used_by(Usage(cost_usd=0.5)) == Used(replies=1, cost_usd=0.5, uncounted=1)


@pytest.mark.parametrize(
    ("config", "untold", "said"),
    [
        ({"max_run_cost_usd": 9.0}, Used(unpriced=1, tokens=5), "max_run_cost_usd cannot be kept"),
        ({"max_run_tokens": 900}, Used(uncounted=1, cost_usd=1.0), "max_run_tokens cannot be kept"),
    ],
)
def test_a_budget_that_nothing_is_told_for_ends_the_run_and_does_not_go_on_unseen(config, untold, said):
    earlier = sum([untold + Used(replies=1)] * 50, Used())
    each = budget(earlier, **config)
    assert each.spent() is None, "a start with prices may go on from one without"
    used = Used()
    for count in range(1, 4):
        used += untold + Used(replies=1)
        each.count("a", used)
        assert bool(each.spent()) == (count == 3)
    assert said in each.spent()


def test_what_some_replies_do_not_tell_is_estimated_by_what_the_others_tell():
    each = budget(max_run_cost_usd=4.0)
    each.count("a", Used(replies=4, cost_usd=2.0, unpriced=3))
    assert "is used up: 8.00 USD" in each.spent()
    each = budget(max_run_tokens=100)
    each.count("a", Used(replies=2, tokens=40, uncounted=1))
    assert each.spent() is None
    each.count("b", Used(replies=1, uncounted=1))
    assert "is used up: 120 tokens" in each.spent()


def test_a_pause_holds_everybody_and_the_longest_one_counts():
    async def waited():
        gate = LocalGate()
        gate.pause(0.4)
        gate.pause(0.1)
        began = time.monotonic()
        await asyncio.gather(gate.ready(9.0), gate.ready(9.0))
        return time.monotonic() - began

    assert 0.4 <= asyncio.run(waited()) < 0.8 + SPREAD_S + 1


def test_who_has_less_time_than_the_pause_lasts_is_told_at_once():
    async def asked():
        gate = LocalGate()
        gate.pause(60.0)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await gate.ready(30.0)
        return time.monotonic() - began

    assert asyncio.run(asked()) < 5
