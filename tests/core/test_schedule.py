import time

import pytest

from realwork.config import RunConfig
from realwork.schedule import Schedule
from realwork.types import Resumption, RolloutSummary


def config(environments=1, max_retries=3, init=(), **control):
    return RunConfig.model_validate(
        {
            "environments": [
                {
                    "id": f"e{number}",
                    "docker_image": "i",
                    "prompt": "p",
                    "unit_tests": ["t"],
                    "max_retries": max_retries,
                    "init_commands": ["make"] if number in init else [],
                }
                for number in range(environments)
            ],
            "rollout_config": {},
            "template_prompt": "s",
            "episode_control_config": control,
        }
    )


def ended(spec, *, success=None, retryable=False, **fields):
    status = "failed" if success is None else "completed"
    reason = "environment_error" if success is None else "completed"
    return RolloutSummary(
        spec=spec, status=status, terminated_reason=reason, success=success, retryable=retryable, **fields
    )


def play(schedule, outcome, at_most=1000):
    """Play one rollout after the other; what was started, as (environment, sample, attempt)."""
    played = []
    while (spec := schedule.next()) is not None and len(played) < at_most:
        played.append((spec.environment_id, spec.sample_index, spec.attempt))
        schedule.record(outcome(spec))
    return played


def lost(spec, n_steps, *, snapshot_after=None, cause="sandbox", **fields):
    """An attempt that lost its container after `n_steps` steps, with a snapshot after some of them."""
    resumption = snapshot_after and Resumption(
        parent_trajectory_id=spec.trajectory_id, fork_step=snapshot_after, snapshot_id=f"snapshot-{spec.attempt}"
    )
    fields = {"loses_sandbox": cause == "sandbox", "failure_cause": cause} | fields
    return ended(spec, retryable=True, n_steps=n_steps, resumption=resumption, **fields)


@pytest.mark.parametrize(
    ("control", "indexes", "size"),
    [
        ({"max_episodes": 4}, [None] * 4, 4),
        ({"max_episodes": 4, "group_size": 2}, [0, 0, 1, 1], 2),
        ({"max_episodes_per_env": 6, "group_size": 6}, [0] * 6, 6),
        ({"max_episodes": 9, "safety_limit": 3, "group_size": 1}, [0, 1, 2], 1),
    ],
)
def test_samples_in_their_order_make_groups(control, indexes, size):
    schedule = Schedule(config(**control), "r")
    specs = [schedule.next() for _ in indexes]
    assert [spec.group_index for spec in specs] == indexes
    assert {spec.group_size for spec in specs} == {size}
    assert [spec.sample_index for spec in specs] == [*range(len(indexes))]


def attempts(outcomes):
    """What each attempt of one rollout was to go on from, when they end by `outcomes` and then succeed."""
    schedule, resumed, waiting = Schedule(config(), "r"), [], list(outcomes)
    while (spec := schedule.next()) is not None:
        resumed.append(spec.resumed and (spec.resumed.snapshot_id, spec.resumed.fork_step))
        schedule.record(waiting.pop(0)(spec) if waiting else ended(spec, success=True))
    return resumed


def test_a_new_attempt_goes_on_from_the_last_snapshot_of_the_one_that_was_lost():
    steps = [
        lambda spec: lost(spec, 7, snapshot_after=5),
        lambda spec: lost(spec, 12, snapshot_after=10, cause="node"),
    ]
    assert attempts(steps) == [None, ("snapshot-0", 5), ("snapshot-1", 10)]


def test_an_attempt_that_could_not_begin_leaves_the_snapshot_to_the_next():
    steps = [lambda spec: lost(spec, 7, snapshot_after=5), lambda spec: lost(spec, 0, loses_sandbox=False)]
    assert attempts(steps) == [None, ("snapshot-0", 5), ("snapshot-0", 5)]


def test_an_attempt_that_went_on_and_came_no_further_is_followed_by_one_from_the_beginning():
    steps = [lambda spec: lost(spec, 7, snapshot_after=5), lambda spec: lost(spec, 5, snapshot_after=5)]
    assert attempts(steps) == [None, ("snapshot-0", 5), None]


def test_an_attempt_whose_model_failed_is_followed_by_one_from_the_beginning():
    steps = [
        lambda spec: lost(spec, 7, snapshot_after=5),
        lambda spec: ended(spec, retryable=True, failure_cause="model", n_steps=8),
    ]
    assert attempts(steps) == [None, ("snapshot-0", 5), None]


@pytest.mark.parametrize(("at", "played"), [([0, 0, 0], 2), ([3, 3], 2), ([3, 4, 4], 3), ([3, 4, 3], 4)])
def test_a_container_lost_twice_in_a_row_at_the_same_step_is_not_tried_again(at, played):
    assert len(attempts([lambda spec, steps=steps: lost(spec, steps) for steps in at])) == played


@pytest.mark.parametrize(("failures", "played"), [(["grading"] * 3, 2), (["grading", "model", "grading"], 4)])
def test_tests_that_twice_in_a_row_could_not_be_run_are_not_tried_again(failures, played):
    outcomes = [
        lambda spec, cause=cause, at=at: ended(spec, retryable=True, failure_cause=cause, n_steps=at)
        for at, cause in enumerate(failures)
    ]
    assert len(attempts(outcomes)) == played


def test_a_process_lost_twice_at_the_same_step_is_tried_again():
    assert len(attempts([lambda spec: lost(spec, 3, cause="node")] * 2)) == 3


def test_every_sample_of_every_environment_is_played_once_group_by_group():
    schedule = Schedule(config(environments=2, max_episodes=3), "r")
    played = play(schedule, lambda spec: ended(spec, success=True))
    assert played == [("e0", 0, 0), ("e0", 1, 0), ("e0", 2, 0), ("e1", 0, 0), ("e1", 1, 0), ("e1", 2, 0)]
    assert schedule.finished


def test_the_samples_of_a_group_share_its_id_and_have_seeds_of_their_own():
    schedule, again = Schedule(config(max_episodes=8), "r"), Schedule(config(max_episodes=8), "r2")
    specs = [schedule.next() for _ in range(8)]
    assert {spec.group_id for spec in specs} == {"r:e0"}
    assert len({spec.seed for spec in specs}) == 8
    assert [spec.seed for spec in specs] == [again.next().seed for _ in range(8)]


def test_max_episodes_per_env_and_the_safety_limit_bound_the_episodes():
    assert (
        len(play(Schedule(config(max_episodes=2, max_episodes_per_env=5), "r"), lambda s: ended(s, success=False))) == 5
    )
    assert len(play(Schedule(config(max_episodes=9, safety_limit=4), "r"), lambda s: ended(s, success=False))) == 4


def test_a_retryable_failure_gets_new_attempts_up_to_max_retries():
    schedule = Schedule(config(max_retries=2), "r")
    played = play(schedule, lambda spec: ended(spec, retryable=True, failure_cause="sandbox"))
    assert played == [("e0", 0, 0), ("e0", 0, 1), ("e0", 0, 2)]
    assert schedule.progress()[0].failed == 1


def test_a_failure_that_is_not_retryable_gets_no_new_attempt():
    schedule = Schedule(config(max_episodes=2), "r")
    assert len(play(schedule, ended)) == 2


def test_a_rollout_waits_while_its_only_attempt_is_in_flight():
    schedule = Schedule(config(), "r")
    spec = schedule.next()
    assert schedule.next() is None
    assert not schedule.finished
    schedule.record(ended(spec, retryable=True))
    assert schedule.next().attempt == 1


def test_stop_on_success_starts_no_further_episode_of_that_environment_only():
    schedule = Schedule(config(environments=2, max_episodes=3, stop_on_success=True), "r")
    played = play(schedule, lambda spec: ended(spec, success=spec.environment_id == "e0" and spec.sample_index == 1))
    assert played == [("e0", 0, 0), ("e0", 1, 0), ("e1", 0, 0), ("e1", 1, 0), ("e1", 2, 0)]
    assert [each.skipped for each in schedule.progress()] == [1, 0]


@pytest.mark.parametrize(("rate", "episodes"), [(0.5, 4), (1.0, 10), (0.0, 3)])
def test_min_success_rate_counts_from_three_graded_episodes(rate, episodes):
    schedule = Schedule(config(max_episodes=10, min_success_rate=rate), "r")
    played = play(schedule, lambda spec: ended(spec, success=spec.sample_index in (0, 3)))
    assert len(played) == episodes


def test_a_failed_environment_starts_nothing_more():
    schedule = Schedule(config(environments=2, max_episodes=5), "r")
    played = play(
        schedule,
        lambda spec: ended(spec, fails_environment=True) if spec.environment_id == "e0" else ended(spec, success=True),
    )
    assert [name for name, _, _ in played] == ["e0"] + ["e1"] * 5
    assert [each.failed for each in schedule.progress()] == [5, 0]


def test_a_resumed_run_plays_only_what_has_no_grade_with_attempts_going_on():
    first = Schedule(config(max_episodes=3), "r")
    specs = [first.next() for _ in range(3)]
    already = [ended(specs[0], success=True), ended(specs[1], retryable=True)]
    resumed = Schedule(config(max_episodes=3), "r")
    resumed.take_up(already)
    assert sorted(play(resumed, lambda spec: ended(spec, success=True))) == [("e0", 1, 1), ("e0", 2, 0)]
    assert resumed.progress()[0].graded == 3


def test_a_graded_attempt_counts_even_if_a_failed_one_came_later():
    first = Schedule(config(), "r")
    spec = first.next()
    later = spec.model_copy(update={"attempt": 1})
    resumed = Schedule(config(), "r")
    resumed.take_up([ended(later), ended(spec, success=False)])
    assert resumed.next() is None
    assert resumed.finished


def test_of_an_environment_that_is_not_prepared_one_rollout_starts_and_others_go_on():
    schedule = Schedule(config(environments=2, max_episodes=2, init=[0]), "r")
    first = schedule.next()
    assert [schedule.next().environment_id for _ in range(2)] == ["e1", "e1"]
    assert schedule.next() is None
    assert not schedule.finished
    schedule.prepared(first.environment_id)
    assert (schedule.next().environment_id, schedule.next()) == ("e0", None)


def test_what_fails_the_preparation_for_good_fails_it_once():
    schedule = Schedule(config(max_episodes=5, init=[0]), "r")
    assert len(play(schedule, lambda spec: ended(spec, fails_environment=True))) == 1
    assert (schedule.progress()[0].failed, schedule.finished) == (5, True)


def test_a_preparation_that_may_succeed_is_tried_again_by_one_rollout_at_a_time():
    schedule = Schedule(config(max_episodes=3, init=[0]), "r")
    schedule.record(ended(schedule.next(), retryable=True))
    again = schedule.next()
    assert (again.sample_index, again.attempt) == (0, 1)
    assert schedule.next() is None
    assert not schedule.is_prepared("e0")


def test_when_a_budget_is_spent_what_was_begun_is_finished_and_nothing_else_is_begun():
    schedule = Schedule(config(3, max_episodes=2), "r")
    first = schedule.next()
    schedule.begin_no_more()
    schedule.record(ended(first, retryable=True))
    played = play(schedule, lambda spec: ended(spec, success=True))
    assert sorted(played) == [("e0", 0, 1), ("e0", 1, 0)]
    assert schedule.finished
    assert [(each.graded, each.withheld, each.done) for each in schedule.progress()] == [
        (2, 0, 2),
        (0, 2, 2),
        (0, 2, 2),
    ]


def test_a_rollout_that_waits_for_a_new_attempt_was_begun():
    schedule = Schedule(config(2), "r")
    schedule.record(ended(schedule.next(), retryable=True))
    schedule.begin_no_more()
    assert play(schedule, lambda spec: ended(spec, success=True)) == [("e0", 0, 1)]


def test_an_environment_may_have_several_groups_each_with_an_id_of_its_own():
    schedule = Schedule(config(max_episodes=4, group_size=2), "r")
    specs = [schedule.next() for _ in range(4)]
    assert [spec.group_id for spec in specs] == ["r:e0:0", "r:e0:0", "r:e0:1", "r:e0:1"]
    assert len({spec.rollout_id for spec in specs}) == 4


def test_no_further_group_is_opened_until_one_is_done():
    schedule = Schedule(config(environments=2, max_episodes=4, group_size=2, max_open_groups=2), "r")
    first = [schedule.next() for _ in range(4)]
    assert schedule.next() is None
    schedule.record(ended(first[0], success=True))
    schedule.record(ended(first[2], success=True))
    assert schedule.next() is None, "each has one left to play"
    schedule.record(ended(first[1], retryable=True))
    again = schedule.next()
    assert (again.rollout_id, again.attempt) == ("e0:1", 1), (
        "a failure of ours is run again, so that the group is whole"
    )
    schedule.record(ended(again, success=False))
    assert [schedule.next().group_id for _ in range(2)] == ["r:e1:0"] * 2
    assert schedule.next() is None


def test_a_group_that_was_begun_is_gone_on_with_before_another_is_opened():
    first = Schedule(config(environments=2, max_episodes=2, max_open_groups=1), "r")
    spec = first.next().model_copy(update={"environment_id": "e1", "sample_index": 0})
    resumed = Schedule(config(environments=2, max_episodes=2, max_open_groups=1), "r")
    resumed.take_up([ended(spec, success=True)])
    assert resumed.next().rollout_id == "e1:1"
    assert resumed.next() is None


def test_a_group_whose_environment_was_stopped_is_done():
    schedule = Schedule(config(environments=2, max_episodes=3, stop_on_success=True, max_open_groups=1), "r")
    schedule.record(ended(schedule.next(), success=True))
    assert schedule.next().environment_id == "e1"


def test_what_is_cancelled_before_it_began_has_failed_and_is_not_played():
    schedule = Schedule(config(max_episodes=3), "r")
    schedule.next()
    cancelled = schedule.cancel("e0", 2)
    assert (cancelled.rollout_id, cancelled.attempt) == ("e0:2", 0)
    assert schedule.cancel("e0", 0) is None, "it is in flight"
    assert schedule.cancel("nowhere", 0) is None
    assert schedule.next().sample_index == 1
    assert schedule.next() is None
    assert schedule.progress()[0].failed == 1


def test_many_environments_cost_a_decision_no_more():
    schedule = Schedule(config(environments=2000, max_episodes=2, init=range(2000), max_open_groups=1500), "r")
    began = time.thread_time()
    specs = [schedule.next() for _ in range(1501)]
    assert specs[-1] is None
    for spec in specs[:-1]:
        schedule.prepared(spec.environment_id)
        schedule.record(ended(spec, success=True))
    assert len({schedule.next().environment_id for _ in range(1500)}) == 1500
    assert (time.thread_time() - began) / 3000 < 0.002


def test_every_rollout_is_in_one_state():
    schedule = Schedule(config(environments=3, max_episodes=4, stop_on_success=True), "r")
    outcomes = {"e0": {"success": True}, "e1": {"success": False}, "e2": {"failure_cause": "model"}}
    for _ in range(7):
        spec = schedule.next()
        schedule.record(ended(spec, **outcomes[spec.environment_id]))
    schedule.next()
    assert schedule.states == {
        "waiting": 1,
        "in_flight": 1,
        "successful": 1,
        "unsuccessful": 4,
        "failed": 2,
        "unnecessary": 3,
        "withheld": 0,
    }
