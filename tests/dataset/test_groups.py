"""Each row says whether, with it, every sample of its group was graded."""

import asyncio

import pyarrow.parquet as pq
import pytest

from realwork.dataset.commits import make_commit
from realwork.dataset.compact import compact
from realwork.dataset.encoding import Batch
from realwork.dataset.ledger import Ledger
from realwork.dataset.parts import SAMPLES_FOLDER, part_files
from realwork.dataset.read import trajectories
from realwork.dataset.rows import row, trajectory
from realwork.dataset.run_directory import open_run
from realwork.dataset.shards import shard_number
from realwork.dataset.store import TrajectoryStore

from .records import failed, graded, rich
from .store import committed


def rows(directory, folder="trajectories"):
    return [row for part in part_files(directory, folder) for row in pq.read_table(part).to_pylist()]


def whole(directory):
    """Of each attempt, whether its row says that its group is complete."""
    return {row["trajectory_id"].removeprefix("r1:"): row["group_complete"] for row in rows(directory)}


def one_by_one(directory, *records):
    """Commit each in a transaction of its own."""

    async def commit():
        async with TrajectoryStore(directory) as store:
            return [(await store.commit(make_commit(record))).outcome for record in records]

    return asyncio.run(commit())


def test_the_row_of_the_last_graded_sample_of_a_group_says_so_and_no_other(tmp_path):
    one_by_one(tmp_path, *(graded(sample, group_size=2) for sample in (0, 2, 1, 4)))
    assert whole(tmp_path) == {"calc:0:0": False, "calc:2:0": False, "calc:1:0": True, "calc:4:0": False}
    assert [(row["group_id"], row["group_size"]) for row in rows(tmp_path)] == [
        *(("r1:calc:0", 2), ("r1:calc:1", 2), ("r1:calc:0", 2), ("r1:calc:2", 2))
    ]


def test_of_samples_that_are_committed_together_one_completes_the_group(tmp_path):
    committed(tmp_path, [graded(sample, group_size=4) for sample in range(12)])
    assert sum(whole(tmp_path).values()) == 3


def test_failed_attempts_do_not_count_and_neither_does_what_is_sent_twice_or_comes_too_late(tmp_path):
    records = [
        graded(0, group_size=2),
        graded(0, group_size=2),
        graded(0, attempt=1, group_size=2, seconds=11.0),
        failed(1, group_size=2),
        graded(1, attempt=1, group_size=2),
    ]
    said = one_by_one(tmp_path, *records)
    assert said == ["committed", "duplicate", "fenced", "committed", "committed"]
    assert whole(tmp_path) == {"calc:0:0": False, "calc:1:0": False, "calc:1:1": True}


def test_a_group_that_could_not_be_made_whole_has_rows_that_all_say_so(tmp_path):
    one_by_one(tmp_path, graded(0, group_size=2), failed(1, group_size=2), failed(1, attempt=1, group_size=2))
    assert set(whole(tmp_path).values()) == {False}


def test_samples_of_an_earlier_start_count(tmp_path):
    for sample in range(3):
        one_by_one(tmp_path, graded(sample, group_size=3))
    assert whole(tmp_path) == {"calc:0:0": False, "calc:1:0": False, "calc:2:0": True}


def test_what_a_killed_store_has_held_counts_and_keeps_what_it_says(tmp_path):
    open_run(tmp_path, "{}")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    commits = [make_commit(graded(sample, group_size=2)) for sample in (0, 1, 2)]
    ledger.apply(commits, [0.0] * 3, Batch(commits).packed)
    ledger.close()
    one_by_one(tmp_path, graded(3, group_size=2))
    assert whole(tmp_path) == {"calc:0:0": False, "calc:1:0": True, "calc:2:0": False, "calc:3:0": True}


def test_samples_of_which_a_lost_ledger_knew_count_once(tmp_path):
    open_run(tmp_path, "{}")
    one_by_one(tmp_path, failed(0, group_size=3), graded(0, attempt=1, group_size=3), graded(1, group_size=3))
    (tmp_path / "ledger.sqlite").unlink()
    one_by_one(tmp_path, graded(1, group_size=3), graded(3, group_size=3))
    assert set(whole(tmp_path).values()) == {False}
    one_by_one(tmp_path, graded(2, group_size=3))
    assert [name for name, is_whole in whole(tmp_path).items() if is_whole] == ["calc:2:0"]


def test_parts_that_were_put_together_say_what_they_said(tmp_path):
    open_run(tmp_path, "{}")
    for sample in range(4):
        one_by_one(tmp_path, graded(sample, group_size=2))
    before = whole(tmp_path)
    compact(tmp_path)
    assert len(part_files(tmp_path)) == 1
    assert whole(tmp_path) == before
    assert sum(before.values()) == 2


def test_a_sample_alone_is_its_group(tmp_path):
    one_by_one(tmp_path, graded(0), failed(1))
    assert whole(tmp_path) == {"calc:0:0": True, "calc:1:0": False}


def test_samples_know_the_size_of_their_group(tmp_path):
    one_by_one(tmp_path, rich(9))
    (sample,) = rows(tmp_path, SAMPLES_FOLDER)[:1]
    assert (sample["group_id"], sample["group_size"]) == ("r1:calc:1", 8)


@pytest.mark.parametrize("environment_id", ["calc", "calc:1", "1", ":"])
@pytest.mark.parametrize("group_size", [None, 1, 3])
def test_a_trajectory_comes_back_with_its_group(environment_id, group_size):
    record = graded(7, environment_id=environment_id, group_size=group_size)
    assert trajectory(row(record)).spec == record.spec
    assert record.spec.group_id == f"r1:{environment_id}" + (f":{7 // group_size}" if group_size else "")


def test_the_groups_of_a_run_are_spread_over_its_stores():
    found = {shard_number("calc", index, of=4) for index in range(40)}
    assert found == {0, 1, 2, 3}
    assert shard_number("calc", None, of=1) == 0
    assert shard_number("\ud800", 1, of=1000) == shard_number("\ufffd", 1, of=1000)


def test_a_reader_finds_the_trajectories_of_all_groups(tmp_path):
    open_run(tmp_path, "{}")
    committed(tmp_path, [graded(sample, group_size=2) for sample in range(4)])
    assert {record.spec.group_index for record in trajectories(tmp_path)} == {0, 1}
