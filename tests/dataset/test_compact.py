"""Small parts become larger ones, whatever is killed meanwhile."""

import subprocess
import sys

import pytest

from realwork.dataset.arrow import samples
from realwork.dataset.compact import compact
from realwork.dataset.parts import SAMPLES_FOLDER, part_files
from realwork.dataset.read import find, trajectories
from realwork.dataset.run_directory import open_run
from realwork.dataset.sealing import ledgers
from realwork.dataset.shards import Shard
from realwork.errors import StoreError
from tests.e2e.command import clean_environment, realwork

from .records import failed, graded, rich
from .store import committed


def make_run(directory, *, parts=6, shards=1):
    open_run(directory, "{}")
    for number in range(parts):
        records = [rich(10 * number), graded(10 * number + 1), failed(10 * number + 2)]
        committed(directory, records, shard=Shard(number % shards, shards))
    return [*trajectories(directory)], samples(directory).to_table().to_pylist()


@pytest.mark.parametrize("shards", [1, 2])
def test_rows_and_samples_stand_in_one_part_a_shard_in_their_order_and_are_found(tmp_path, shards):
    records, segments = make_run(tmp_path, shards=shards)
    assert compact(tmp_path) == (6, shards)
    assert len(part_files(tmp_path)) == len(part_files(tmp_path, SAMPLES_FOLDER)) == shards
    key = lambda record: record.spec.sample_index  # noqa: E731
    assert sorted(trajectories(tmp_path), key=key) == sorted(records, key=key)
    after = samples(tmp_path).to_table().to_pylist()
    assert sorted(after, key=str) == sorted(segments, key=str)
    assert compact(tmp_path) == (shards, shards)
    (ack,) = committed(tmp_path, [graded(1)], shard=Shard(0, shards))
    assert ack.outcome == "duplicate"
    assert next(find(tmp_path, "r1:calc:51:0")).spec == graded(51).spec


SCRIPT = """
import sys
from pathlib import Path
from realwork.dataset.compact import compact
compact(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("point", ["merging", "merged"])
def test_a_compaction_that_is_killed_loses_and_doubles_nothing(tmp_path, point):
    records, segments = make_run(tmp_path, parts=3)
    environment = clean_environment(REALWORK_FAULT_POINTS=point)
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -9
    with ledgers(tmp_path, wait_s=0.0):
        pass
    assert not list(tmp_path.rglob("*.tmp"))
    assert [*trajectories(tmp_path)] == records
    assert samples(tmp_path).to_table().to_pylist() == segments
    assert len(part_files(tmp_path)) == {"merging": 3, "merged": 1}[point]
    assert compact(tmp_path).after == 1
    assert [*trajectories(tmp_path)] == records


def test_the_command_says_what_it_did_and_refuses_a_run_at_work(tmp_path):
    make_run(tmp_path / "r", parts=2)
    done = realwork("compact", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/r: 2 parts before, 1 now\n")
    with ledgers(tmp_path / "r", wait_s=0.0):
        with pytest.raises(StoreError, match="another process"):
            compact(tmp_path / "r")
        refused = realwork("compact", tmp_path / "r", cwd=tmp_path)
    assert refused.returncode == 1
    assert "another process writes into" in refused.stderr
