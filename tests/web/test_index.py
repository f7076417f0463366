"""The index of a run follows it while it is written, reads parts once, and writes nothing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from realwork.analysis.index import RunIndex, run_indexes
from realwork.dataset.ack import Begun
from realwork.dataset.commits import make_commit, make_unfinished
from realwork.dataset.live import find_live, is_played, live
from realwork.dataset.run_directory import held
from realwork.dataset.sealing import Sealing
from realwork.dataset.store import TrajectoryStore
from realwork.errors import InputError
from tests.dataset.records import failed, graded, rich
from tests.dataset.store import committed

HOLDS = """
import sys
from pathlib import Path
from realwork.dataset.run_directory import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
LATER = Sealing(age_s=3600.0)


def refreshed(directory):
    index = RunIndex(directory)
    index.refresh()
    return index


def files_of(directory):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*") if path.is_file()}


def column(index, name):
    return index.table.column(name).to_pylist()


def test_rows_are_seen_as_soon_as_they_are_acknowledged_and_the_store_goes_on(tmp_path):
    async def play():
        seen = []
        async with TrajectoryStore(tmp_path, sealing=LATER) as store:
            index = RunIndex(tmp_path, rest=0)
            for sample in range(3):
                await store.commit(make_commit(graded(sample)))
                index.refresh()
                seen.append((index.table.num_rows, index.version, [*(tmp_path / "trajectories").glob("part-*")]))
        return index, seen

    index, seen = asyncio.run(play())
    assert [(rows, parts) for rows, _, parts in seen] == [(1, []), (2, []), (3, [])]
    assert len({version for _, version, _ in seen}) == 3
    index.refresh()
    assert column(index, "trajectory_id") == ["r1:calc:0:0", "r1:calc:1:0", "r1:calc:2:0"]
    assert len(list((tmp_path / "trajectories").glob("part-*"))) == 1


def test_looking_writes_nothing_and_needs_no_lock(tmp_path):
    async def look_while_it_is_written():
        async with TrajectoryStore(tmp_path, sealing=LATER) as store:
            await store.commit(make_commit(graded(0)))
            before = files_of(tmp_path)
            with held(tmp_path / "other"):
                refreshed(tmp_path).row("r1:calc:0:0")
            after = files_of(tmp_path)
            return before, {path: mark for path, mark in after.items() if "other" not in path.parts}

    before, after = asyncio.run(look_while_it_is_written())
    assert after == before


def test_what_is_in_flight_is_told_with_the_steps_that_it_has_handed_over(tmp_path):
    async def look():
        async with TrajectoryStore(tmp_path, sealing=LATER) as store:
            record = rich(4)
            await store.commit(make_commit(graded(0)))
            store.begin(Begun(spec=record.spec, node_id="node-1"))
            store.progress(make_unfinished(record))
            await store.unfinished(record.spec.trajectory_id)
            return live(tmp_path), find_live(tmp_path, record.spec.trajectory_id)

    now, so_far = asyncio.run(look())
    assert [batch.num_rows for batch in now.rows] == [1]
    assert [(each.spec.trajectory_id, each.node_id) for each in now.running] == [("r1:calc:4:0", "node-1")]
    assert len(so_far.steps) == 2


def test_a_part_is_read_once(tmp_path):
    committed(tmp_path, [graded(sample) for sample in range(4)])
    index = refreshed(tmp_path)
    version = index.version
    (part,) = (tmp_path / "trajectories").glob("part-*")
    content, stat = part.read_bytes(), part.stat()
    part.write_bytes(b"x" * len(content))
    os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index.refresh()
    assert (index.table.num_rows, index.version) == (4, version)


def test_a_part_that_was_compacted_away_leaves_the_index(tmp_path):
    from realwork.dataset.compact import compact

    committed(tmp_path, [graded(0)])
    committed(tmp_path, [graded(1)])
    index = refreshed(tmp_path)
    compact(tmp_path)
    index.refresh()
    assert sorted(column(index, "trajectory_id")) == ["r1:calc:0:0", "r1:calc:1:0"]


def test_the_graded_attempt_counts_for_its_rollout_else_the_last(tmp_path):
    records = [failed(0), graded(0, attempt=1), failed(1), failed(1, attempt=1)]
    for record in records:
        committed(tmp_path, [record])
    index = refreshed(tmp_path)
    counting = dict(zip(column(index, "trajectory_id"), column(index, "counts"), strict=True))
    assert [name for name, counts in counting.items() if counts] == ["r1:calc:0:1", "r1:calc:1:1"]
    assert column(index, "outcome") == ["ungraded", "passed", "ungraded", "ungraded"]


def test_a_row_is_found_whole_in_a_part_and_in_the_ledger(tmp_path):
    async def look():
        async with TrajectoryStore(tmp_path, sealing=LATER) as store:
            await store.commit(make_commit(rich(7)))
            return refreshed(tmp_path).row("r1:calc:7:0")

    in_ledger = asyncio.run(look())
    in_part = refreshed(tmp_path).row("r1:calc:7:0")
    assert in_ledger["messages"] == in_part["messages"]
    assert len(in_part["messages"]) == 6
    assert refreshed(tmp_path).row("r1:calc:8:0") is None


def test_a_run_is_played_while_the_process_that_holds_it_lives(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert is_played(tmp_path)
        process.stdin.close()
        process.wait()
    assert not is_played(tmp_path)


def test_runs_are_found_in_directories_of_runs_and_each_once(tmp_path):
    for name in ("a", "b"):
        committed(tmp_path / name, [graded(0, run=name)])
    assert [index.name for index in run_indexes([tmp_path, tmp_path / "b"])] == ["a", "b"]
    with pytest.raises(InputError, match="holds no run"):
        run_indexes([tmp_path, Path(tmp_path / "a" / "trajectories")])
