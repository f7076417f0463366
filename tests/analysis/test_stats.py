"""The numbers of a run, against examples worked out by hand."""

import json

import pytest

from realwork.analysis.stats import pass_at_k, stats
from realwork.dataset.run_directory import note_plugins
from realwork.errors import InputError
from realwork.types import Observation, Step, Usage
from tests.dataset import records as dataset_records
from tests.e2e.command import realwork

from .records import BEGAN, TIMING, failed, graded, make_run, step


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


def answered(*calls, taken_over=0, cached=None):
    """Steps with one call each, of these statuses and decisions."""
    steps = [
        Step(
            index=index,
            message_index=0,
            started_at=BEGAN,
            usage=Usage(prompt_tokens=100, cached_tokens=cached),
            observations=(Observation(call_id="c", tool_name="t", status=status, decision=decision),),
        )
        for index, (status, decision) in enumerate(calls)
    ]
    return {"steps": tuple(steps), "fork_step": taken_over or None}


def test_tool_calls_cached_tokens_and_plugins_are_summed_without_what_was_taken_over(tmp_path):
    said = {"guard": {"calls": 2, "seconds": 0.5, "call_s": [0.1, 0.4], "name": "x"}, "other": {"error": "boom"}}
    more = {"guard": {"calls": 98, "seconds": 9.5, "call_s": [0.1] * 97 + [2.0]}}
    first = answered(("ok", "allowed"), ("error", "allowed"), ("blocked", "blocked by guard"), cached=60)
    second = answered(("ok", "allowed"), ("ok", "allowed"), ("ok", "changed by guard"), taken_over=2)
    records = [
        graded("a", 0, 2, plugin_data=json.dumps(said), **first),
        graded(
            "a",
            1,
            0,
            plugin_data=json.dumps(more),
            **second,
        ),
        graded("b", 0, 2),
    ]
    make_run(tmp_path, records)
    found = stats(tmp_path)
    a = found.environments["a"]
    assert a.tool_calls == {"ok": 2, "blocked": 1, "error": 1}
    assert (a.action_efficiency, a.tool_calls_per_success, a.cached_tokens) == (2 / 4, 6, 180)
    assert a.decisions == {"allowed": 2, "blocked by guard": 1, "changed by guard": 1}
    guard, other = a.plugins["guard"], a.plugins["other"]
    assert (guard.calls, guard.errors, guard.mean_s) == (100, 0, 0.1)
    assert 0.1 <= guard.p95_s <= 0.102
    assert (other.calls, other.errors, other.mean_s, other.p95_s) == (0, 1, None, None)
    assert (found.environments["b"].action_efficiency, found.environments["b"].cached_tokens) == (None, None)
    assert found.total.tool_calls == a.tool_calls


def test_the_spread_of_rewards_and_groups_without_any(tmp_path):
    records = [graded("a", 0, 2, seconds=1), graded("a", 1, 0, seconds=2), graded("b", 0, 1, seconds=9)]
    make_run(tmp_path, [*records, graded("b", 1, 1, seconds=4), graded("c", 0, 2), failed("c", 1, "model")])
    found = stats(tmp_path)
    assert [found.environments[name].reward_std for name in "abc"] == [0.5, 0.0, 0.0]
    assert [found.environments[name].groups_alike for name in "abc"] == [0, 1, 0]
    assert found.total.groups_alike == 1
    assert (found.total.median_duration_s, found.total.p95_duration_s) == (4, 10)


def test_groups_of_one_environment_are_told_apart_and_its_pass_at_k_is_of_all(tmp_path):
    rewards = (1, 1, 0, 1)
    records = [dataset_records.graded(sample, passed=2 * won, group_size=2) for sample, won in enumerate(rewards)]
    make_run(tmp_path, records)
    found = stats(tmp_path).environments["calc"]
    assert found.groups_alike == 1
    assert [*found.pass_at_k] == [1, 2, 4]


def test_what_was_planned_and_has_no_row_is_missing(tmp_path):
    make_run(tmp_path, [graded("a", 0, 2), failed("a", 1, "model")])
    control = {"max_episodes": 9, "max_episodes_per_env": None, "safety_limit": 3}
    document = {"run_file": {"environments": [{"id": "a"}, {"id": "never"}], "episode_control_config": control}}
    (tmp_path / "run.json").write_text(json.dumps(document))
    found = stats(tmp_path)
    assert {name: (each.planned, each.missing) for name, each in found.environments.items()} == {
        "a": (3, 1),
        "never": (3, 3),
    }
    assert (found.total.planned, found.total.missing, found.total.rollouts) == (6, 4, 2)
    assert found.environments["never"].mean_reward is None


def test_what_episode_control_made_unnecessary_is_told_from_what_was_not_played_yet(tmp_path):
    records = [graded("solved", 0, 2), graded("unsolved", 0, 1), graded("stopped", 0, 0)]
    make_run(tmp_path, records)
    control = {"max_episodes": 4, "stop_on_success": True}
    names = [{"id": name} for name in ("solved", "unsolved", "stopped", "never")]
    document = {"run_id": "r1", "run_file": {"environments": names, "episode_control_config": control}}
    (tmp_path / "run.json").write_text(json.dumps(document))
    note_plugins(tmp_path, {"mgr": {"calls": 1, "seconds": 0.1, "stopped": {"stopped": 1}}})
    found = stats(tmp_path)
    assert {name: (each.missing, each.unnecessary) for name, each in found.environments.items()} == {
        "solved": (3, 3),
        "unsolved": (3, 0),
        "stopped": (3, 3),
        "never": (4, 0),
    }
    assert (found.total.missing, found.total.unnecessary) == (13, 6)
    said = realwork("stats", tmp_path, cwd=tmp_path).stdout
    assert "Not played yet: 7" in said
    assert "Made unnecessary by episode control or a plugin: 6" in said


def test_the_tables_do_not_flood(tmp_path):
    make_run(tmp_path, [graded(f"e{number}", 0, 2) for number in range(120)] + [failed("e7", 1, "model")])
    said = realwork("stats", tmp_path, cwd=tmp_path).stdout
    assert "70 more environments; --json has them all" in said
    assert len(json.loads(realwork("stats", tmp_path, "--json", cwd=tmp_path).stdout)["environments"]) == 120
    listed = realwork("show", tmp_path, cwd=tmp_path).stdout
    assert "21 more; --all lists them" in listed
    assert realwork("show", tmp_path, "--all", cwd=tmp_path).stdout.count("r1:e") == 121
    assert realwork("show", tmp_path, "--environment", "e7", cwd=tmp_path).stdout.count("r1:e7:") == 2
    assert realwork("show", tmp_path, "--failed", cwd=tmp_path).stdout.count("r1:e") == 1


def test_a_run_without_rows_has_numbers_of_nothing(tmp_path):
    make_run(tmp_path, [])
    nothing = stats(tmp_path)
    assert (nothing.total.rollouts, nothing.total.mean_duration_s, nothing.environments) == (0, None, {})


def test_numbers_of_what_is_no_run_are_refused(tmp_path):
    with pytest.raises(InputError):
        stats(tmp_path)
