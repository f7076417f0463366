"""On which node a rollout is played."""

from collections import Counter

import pytest

from realwork.schedule import Placement
from realwork.schedule.placement import FIRST_REST_S, LONGEST_REST_S, MOST_RESTS, PATIENCE


def placement(*rooms, share=100):
    made = Placement(share)
    for number, room in enumerate(rooms):
        made.set_node(f"n{number}", f"node {number}", room)
    return made


def place(nodes, count, environment="e", now=0.0):
    """The nodes that the next `count` rollouts of an environment go to."""
    chosen = []
    for _ in range(count):
        node_id = nodes.choose(environment, now)
        if node_id is not None:
            nodes.take(node_id)
        chosen.append(node_id)
    return chosen


def fail(nodes, node_id, times=PATIENCE, now=0.0):
    return [nodes.note_failure(node_id, now, "e", is_sound=True) for _ in range(times)][-1]


def test_rollouts_are_spread_by_the_room_of_the_nodes_and_none_gets_more():
    nodes = placement(2, 4)
    assert Counter(place(nodes, 3)) == {"n0": 1, "n1": 2}
    assert Counter(place(nodes, 4)) == {"n0": 1, "n1": 2, None: 1}
    nodes.release("n1")
    assert place(nodes, 1) == ["n1"]


def test_rollouts_go_where_their_image_is_until_that_node_has_half_its_share_more():
    nodes = placement(10, 10, share=8)
    nodes.note_image("n1", "e")
    assert place(nodes, 4) == ["n1", "n1", "n0", "n1"]
    nodes.note_image("n0", "e")
    assert nodes.with_image("e") == ["n0", "n1"]
    assert Counter(place(nodes, 4)) == {"n0": 3, "n1": 1}


def test_a_node_in_which_a_process_waits_comes_before_one_that_has_to_start_one():
    nodes = placement(10, 10)
    nodes.set_idle("n1", 1)
    assert place(nodes, 1) == ["n1"]


def test_a_rollout_goes_back_to_the_node_that_has_its_snapshot_unless_that_keeps_failing():
    nodes = placement(10, 10)
    fail(nodes, "n1", times=1)
    assert nodes.choose("e", 0.0, prefers="n1") == "n1"
    fail(nodes, "n1", times=1)
    assert nodes.choose("e", 0.0, prefers="n1") == "n0"


def test_a_rollout_that_failed_on_a_node_goes_elsewhere_if_there_is_room():
    nodes = placement(1, 1)
    assert nodes.choose("e", 0.0, avoids="n0") == "n1"
    nodes.take("n1")
    assert nodes.choose("e", 0.0, avoids="n0") == "n0"


def test_a_node_that_fails_three_rollouts_in_a_row_rests_and_is_tried_again_for_longer_each_time():
    nodes = placement(10, 10)
    fail(nodes, "n0", times=PATIENCE - 1)
    nodes.note_success("n0")
    assert fail(nodes, "n0", times=PATIENCE - 1) == 0
    assert fail(nodes, "n0", times=1) == FIRST_REST_S
    assert set(place(nodes, 5, now=FIRST_REST_S - 1)) == {"n1"}
    assert nodes.places(4.0)[0].rests_s == FIRST_REST_S - 4
    assert fail(nodes, "n0", times=1, now=FIRST_REST_S) == 2 * FIRST_REST_S
    assert fail(nodes, "n0", times=1, now=FIRST_REST_S + 1) == 0, "it ended while the node was resting"
    nodes.note_success("n0")
    assert fail(nodes, "n0", now=1000.0) == FIRST_REST_S


def test_when_every_node_rests_nothing_is_started_and_when_all_did_so_often_there_is_no_hope():
    nodes, now = placement(4), 0.0
    rests = []
    for number in range(MOST_RESTS + 1):
        assert not nodes.is_hopeless
        rest_s = fail(nodes, "n0", times=1 if number else PATIENCE, now=now)
        rests.append(rest_s)
        assert nodes.choose("e", now + rest_s - 0.1) is None
        now += rest_s
        assert nodes.choose("e", now) == "n0"
    assert (nodes.is_hopeless, max(rests)) == (True, LONGEST_REST_S)
    nodes.note_success("n0")
    assert not nodes.is_hopeless


def test_what_fails_in_one_environment_alone_that_was_never_graded_is_not_the_nodes_fault():
    nodes = placement(4)
    assert [nodes.note_failure("n0", 0.0, "broken", is_sound=False) for _ in range(9)] == [0.0] * 9
    assert nodes.note_failure("n0", 0.0, "another", is_sound=False) == FIRST_REST_S


def test_a_node_that_rested_may_have_lost_its_images():
    nodes = placement(4)
    nodes.note_image("n0", "e")
    fail(nodes, "n0")
    assert nodes.with_image("e") == []


def test_a_node_that_is_gone_takes_what_was_on_it_along_and_may_come_back():
    nodes = placement(2, 2)
    place(nodes, 4)
    nodes.remove("n0")
    nodes.release("n0")
    (left,) = nodes.places(0.0)
    assert (nodes.room, left.used, "n0" in nodes) == (2, 2, False)
    nodes.set_node("n0", "node 0", 3)
    assert place(nodes, 3) == ["n0"] * 3


@pytest.mark.parametrize("share", [1, 8, 1000])
def test_however_many_are_wanted_all_room_can_be_used(share):
    assert None not in place(placement(3, 5, share=share), 8)
