"""The nodes of a cluster that is simulated: who is asked, who pulls, who takes part."""

import asyncio

import pytest

from realwork.distributed.cluster import Node
from realwork.distributed.nodes import PULLS, Nodes
from realwork.errors import InputError, NodeError
from realwork.preflight import MachineFacts, Question
from realwork.schedule import Placement
from tests.distributed.test_dispatching import until

IMAGE = "image:1"


class Cluster:
    """Takes the place of `RayMembers`.

    Attributes:
        there: the names of the nodes that it tells; null when it tells nothing.
        having: those that have the image.
        silent: those that never answer.
        unpullable: those on which the image cannot be pulled.
        pulled: those that have pulled it, in order; `at_once` is the most that did so at the same time.
        requests: what was asked of the autoscaler.
    """

    def __init__(self, *names):
        self.there = [*names]
        self.having, self.silent, self.unpullable = set(), set(), set()
        self.pulled, self.requests = [], []
        self.at_once = self._now = 0

    async def alive(self):
        if self.there is None:
            raise NodeError("the cluster is being restarted")
        return [node(name) for name in self.there]

    async def ask(self, asked, question, within_s):
        if asked.name in self.silent:
            return MachineFacts(problems=("it gave no answer in time",))
        if asked.name in self.having:
            return MachineFacts()
        if not question.pulls:
            return MachineFacts(missing_images=(IMAGE,))
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await asyncio.sleep(0.05)
        self._now -= 1
        self.pulled.append(asked.name)
        if asked.name in self.unpullable:
            return MachineFacts(problems=("no such image",))
        self.having.add(asked.name)
        return MachineFacts()

    async def request(self, memory_mib, count):
        self.requests.append((memory_mib, count))


def node(name):
    return Node(node_id=f"id of {name}", name=name, memory_mib=200, cpus=1)


def nodes_of(cluster):
    return Nodes(Question(needs=None), 100, cluster)


def many(count):
    return [f"n{number}" for number in range(count)]


async def watched(cluster, nodes, condition, *, share=1, left=1):
    """What `watch` has noted until `condition` of the placement holds."""
    placement, told = Placement(share), []
    nodes.place(placement)
    watching = asyncio.create_task(
        nodes.watch(placement, on_change=lambda: None, note=told.append, left=lambda: left),
    )
    try:
        await until(lambda: condition(placement))
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    return told


def test_where_no_node_has_the_images_a_few_pull_them_before_the_run_and_no_more():
    cluster = Cluster(*many(10))
    nodes = nodes_of(cluster)
    nodes.begin_with([node(name) for name in cluster.there])
    assert sorted(cluster.pulled) == many(PULLS)
    assert [each.room for each in nodes.found] == [2] * PULLS + [0] * (10 - PULLS)


def test_where_a_node_has_the_images_none_pulls_before_the_run():
    cluster = Cluster(*many(3))
    cluster.having.add("n1")
    nodes = nodes_of(cluster)
    nodes.begin_with([node(name) for name in cluster.there])
    assert cluster.pulled == []
    assert [each.room for each in nodes.found] == [0, 2, 0]


def test_a_pull_that_fails_everywhere_is_told_node_by_node():
    cluster = Cluster(*many(6))
    cluster.unpullable.update(many(6))
    with pytest.raises(InputError) as refused:
        nodes_of(cluster).begin_with([node(name) for name in cluster.there])
    assert [*refused.value.problems] == [f"node {name}: no such image" for name in many(6)]
    assert cluster.at_once <= PULLS


def test_the_others_pull_while_the_run_goes_on_a_few_at_once_and_take_part():
    cluster = Cluster(*many(12))
    cluster.having.add("n0")
    nodes = nodes_of(cluster)
    nodes.begin_with([node(name) for name in cluster.there])
    told = asyncio.run(watched(cluster, nodes, lambda placement: placement.room == 24))
    assert cluster.at_once == PULLS
    assert len(cluster.pulled) == 11
    assert "node n11: 2 rollouts fit in 200 MiB of memory" in told


def test_a_node_that_gives_no_answer_gets_no_rollouts_and_is_named():
    cluster = Cluster(*many(2))
    cluster.having.update(many(2))
    cluster.silent.add("n0")
    nodes = nodes_of(cluster)
    nodes.begin_with([node(name) for name in cluster.there])
    assert [each.room for each in nodes.found] == [0, 2]
    assert nodes.found[0].sentence == "node n0 plays no rollouts: it gave no answer in time"


def test_a_node_that_joins_is_used_and_one_that_is_missing_twice_is_gone():
    cluster = Cluster("n0", "n1")
    cluster.having.update(many(3))
    nodes = nodes_of(cluster)
    nodes.begin_with([node("n0"), node("n1")])
    cluster.there = ["n1", "n2"]
    ids = {"id of n1", "id of n2"}
    told = asyncio.run(
        watched(cluster, nodes, lambda placement: {each.node_id for each in placement.places(0.0)} == ids)
    )
    assert told == [
        "node n2: 2 rollouts fit in 200 MiB of memory",
        "node n0 is gone; what was in flight there is run again elsewhere",
    ]


def test_a_cluster_that_tells_nothing_for_a_moment_loses_no_node():
    cluster = Cluster("n0")
    cluster.having.add("n0")
    nodes = nodes_of(cluster)
    nodes.begin_with([node("n0")])
    cluster.there = None
    looks = iter(range(3))

    def has_looked(placement):
        assert placement.room == 2
        return cluster.there is not None

    async def comes_back():
        for _ in looks:
            await asyncio.sleep(1)
        cluster.there = ["n0"]

    async def both():
        told, _ = await asyncio.gather(watched(cluster, nodes, has_looked), comes_back())
        return told

    assert asyncio.run(both()) == []


def test_the_autoscaler_is_told_what_wants_a_place_and_in_the_end_that_nothing_does():
    cluster = Cluster("n0")
    cluster.having.add("n0")
    nodes = nodes_of(cluster)
    nodes.begin_with([node("n0")])
    asyncio.run(watched(cluster, nodes, lambda _: (100, 5) in cluster.requests, share=5, left=7))
    assert cluster.requests == [(100, 0), (100, 5), (100, 0)]


def test_a_node_on_which_a_process_was_lost_is_let_go_at_once_if_it_is_gone():
    cluster = Cluster("n0", "n1")
    cluster.having.update(many(2))
    nodes, placement, told = nodes_of(cluster), Placement(4), []
    nodes.begin_with([node("n0"), node("n1")])
    nodes.place(placement)
    asyncio.run(nodes.doubt("id of n0", placement, told.append))
    assert (placement.room, told) == (4, []), "it is there"
    cluster.there = ["n1"]
    asyncio.run(nodes.doubt("id of n0", placement, told.append))
    asyncio.run(nodes.doubt("id of n0", placement, told.append))
    assert placement.room == 2
    assert told == ["node n0 is gone; what was in flight there is run again elsewhere"]
