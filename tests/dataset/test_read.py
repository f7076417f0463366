"""A run directory, or several, read back."""

import asyncio

import pytest

from realwork.dataset.arrow import read
from realwork.dataset.commits import make_commit
from realwork.dataset.read import find, trajectories
from realwork.dataset.run_directory import open_run
from realwork.dataset.store import TrajectoryStore
from realwork.errors import InputError, StoreError

from .records import failed, graded, rich


def make_run(directory, records):
    open_run(directory, "{}")

    async def commit():
        async with TrajectoryStore(directory) as store:
            for record in records:
                await store.commit(make_commit(record))

    asyncio.run(commit())


def ids(records):
    return [record.spec.trajectory_id for record in records]


def test_a_run_is_read_in_the_order_of_its_commits(tmp_path):
    make_run(tmp_path, [graded(2), graded(0), graded(1)])
    assert ids(trajectories(tmp_path)) == ["r1:calc:2:0", "r1:calc:0:0", "r1:calc:1:0"]


def test_what_is_read_is_what_was_committed_but_for_the_time_in_the_store(tmp_path):
    make_run(tmp_path, [rich()])
    (there,) = trajectories(tmp_path)
    timing = there.timing.model_copy(update={"store_s": rich().timing.store_s})
    assert there.model_copy(update={"timing": timing}) == rich()


def test_an_output_path_stands_for_all_its_runs(tmp_path):
    make_run(tmp_path / "a", [graded(run="a")])
    make_run(tmp_path / "b", [graded(run="b")])
    (tmp_path / "notes").mkdir()
    assert ids(trajectories(tmp_path)) == ["a:calc:0:0", "b:calc:0:0"]


def test_a_run_without_rows_is_read_as_nothing(tmp_path):
    make_run(tmp_path, [])
    assert read(tmp_path).count_rows() == 0
    assert list(trajectories(tmp_path)) == []
    assert list(find(tmp_path, "r1")) == []


def test_a_half_written_part_is_not_looked_at(tmp_path):
    make_run(tmp_path, [graded()])
    (tmp_path / ".part-000002.parquet.tmp").write_bytes(b"half")
    (tmp_path / "trajectories" / ".part-000002.parquet.tmp").write_bytes(b"half")
    assert read(tmp_path).count_rows() == 1


def test_a_trajectory_is_found_by_its_id_or_all_that_begin_with_a_prefix(tmp_path):
    make_run(tmp_path, [failed(1), graded(1, attempt=1), graded(10), graded(2)])
    assert ids(find(tmp_path, "r1:calc:1:0")) == ["r1:calc:1:0"]
    assert ids(find(tmp_path, "r1:calc:1")) == ["r1:calc:1:0", "r1:calc:1:1", "r1:calc:10:0"]
    assert ids(find(tmp_path, "calc:10:0")) == ["r1:calc:10:0"]
    assert ids(find(tmp_path, "other")) == []


@pytest.mark.parametrize("name", ["", "missing", "file"])
def test_what_holds_no_run_is_refused_with_what_was_expected(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Give the directory of a run"):
        read(tmp_path / name)


def test_a_broken_part_is_an_error_of_the_store(tmp_path):
    make_run(tmp_path, [graded()])
    (tmp_path / "trajectories" / "part-000002.parquet").write_bytes(b"no Parquet")
    with pytest.raises(StoreError, match="cannot be read"):
        list(trajectories(tmp_path))
