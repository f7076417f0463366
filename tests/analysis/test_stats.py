"""The numbers of a run, against examples worked out by hand."""

import pytest

from realwork.analysis.stats import pass_at_k, stats
from realwork.errors import InputError

from .records import TIMING, failed, graded, make_run, step


@pytest.fixture
def run(tmp_path):
    """Four rollouts of `a` (one graded at its second attempt, one never) and one of `b`."""
    spent = (step(0, prompt_tokens=100, completion_tokens=10, cost_usd=0.25), step(1, prompt_tokens=200))
    records = [
        graded("a", 0, 2, seconds=10, steps=spent, timing=TIMING),
        failed("a", 1, "model", seconds=90, steps=spent, timing=TIMING),
        graded("a", 2, 1, seconds=20),
        failed("a", 3, "sandbox", attempt=0, seconds=90),
        failed("a", 3, "model", attempt=1, seconds=30),
        graded("a", 1, 0, attempt=1, seconds=40),
        failed("b", 0, "sandbox", seconds=5),
    ]
    make_run(tmp_path, records)
    return stats(tmp_path)


def test_a_rollout_counts_once_with_its_graded_attempt_or_its_last(run):
    a = run.environments["a"]
    assert (a.rollouts, a.attempts, a.graded, a.successful, a.failed) == (4, 6, 3, 1, 1)
    assert a.failures == {"model": 1}
    assert a.attempt_failures == {"model": 2, "sandbox": 1}
    assert a.terminated_reasons == {"completed": 3, "llm_error": 1}
    assert a.mean_duration_s == (10 + 40 + 20 + 30) / 4
    assert a.mean_steps == 2 / 4


def test_means_of_rewards_leave_the_ungraded_out(run):
    assert run.environments["a"].mean_reward == (1.0 + 0.0 + 0.5) / 3
    assert run.environments["a"].success_rate == 1 / 3
    b = run.environments["b"]
    assert (b.mean_reward, b.success_rate, b.pass_at_k, b.graded) == (None, None, {}, 0)


def test_what_was_spent_counts_every_attempt(run):
    a = run.environments["a"]
    assert (a.prompt_tokens, a.completion_tokens, a.cost_usd) == (600, 20, 0.5)
    assert (a.timing.queue_s, a.timing.llm_s, a.timing.grade_s) == (2, 10, 14)
    assert run.environments["b"].cost_usd is None


def test_the_total_is_over_all_environments(run):
    total = run.total
    assert (total.rollouts, total.attempts, total.graded, total.successful, total.failed) == (5, 7, 3, 1, 2)
    assert total.failures == {"model": 1, "sandbox": 1}
    assert (total.mean_reward, total.cost_usd, total.timing.env_s) == (0.5, 0.5, 12)


def test_pass_at_k_goes_up_to_the_number_of_graded_rollouts(run):
    assert run.environments["a"].pass_at_k == pytest.approx({1: 1 / 3, 2: 2 / 3})
    assert run.total.pass_at_k == pytest.approx({1: 1 / 3, 2: 2 / 3})


def test_pass_at_k_of_all_environments_is_their_mean_where_each_has_enough_rollouts(tmp_path):
    make_run(tmp_path, [graded("a", 0, 2), graded("a", 1, 0), graded("b", 0, 0)])
    assert stats(tmp_path).total.pass_at_k == {1: (0.5 + 0.0) / 2}


@pytest.mark.parametrize(
    ("graded_rollouts", "successful", "k", "expected"),
    [(4, 2, 2, 1 - 1 / 6), (4, 0, 4, 0.0), (4, 1, 4, 1.0), (5, 1, 1, 0.2), (1000, 1, 512, 0.512)],
)
def test_pass_at_k_is_the_unbiased_estimate(graded_rollouts, successful, k, expected):
    assert pass_at_k(graded_rollouts, successful, k) == pytest.approx(expected)


def test_pass_at_more_than_there_are_is_not_defined():
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(3, 1, 4)


def test_rollouts_of_several_runs_are_different_rollouts(tmp_path):
    make_run(tmp_path / "x", [graded("a", 0, 2, run="x")])
    make_run(tmp_path / "y", [graded("a", 0, 0, run="y")])
    assert (stats(tmp_path).total.rollouts, stats(tmp_path).total.mean_reward) == (2, 0.5)


def test_a_run_without_rows_has_numbers_of_nothing(tmp_path):
    make_run(tmp_path, [])
    nothing = stats(tmp_path)
    assert (nothing.total.rollouts, nothing.total.mean_duration_s, nothing.environments) == (0, None, {})


def test_numbers_of_what_is_no_run_are_refused(tmp_path):
    with pytest.raises(InputError):
        stats(tmp_path)
