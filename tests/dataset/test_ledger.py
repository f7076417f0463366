"""A kill at any point neither loses nor doubles a row, and what was cut off gets its row."""

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import realwork
from realwork.dataset.ack import Begun
from realwork.dataset.commits import make_commit, make_unfinished
from realwork.dataset.earlier import earlier_summaries, recover, settle_cut_off
from realwork.dataset.encoding import Batch
from realwork.dataset.ledger import Ledger
from realwork.dataset.parts import ids_in, part_files, part_number
from realwork.dataset.read import find, trajectories
from realwork.dataset.run_directory import held, open_run
from realwork.dataset.shards import Shard, shards_of
from realwork.dataset.side_files import SIDE_FOLDER
from realwork.dataset.summaries import summarize
from realwork.errors import StoreError
from realwork.types import Message

from .records import failed, graded, rich
from .store import committed

HERE = Path(__file__).parent
SEEDS = range(int(os.environ.get("REALWORK_STORE_SEEDS", "2")))


def play(directory, acks, *, points, seed):
    """Run the committer until it is killed at one of `points`, or has committed everything."""
    package = Path(realwork.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    environment |= {"REALWORK_FAULT_POINTS": points, "REALWORK_FAULT_SEED": str(seed)}
    command = [sys.executable, str(HERE / "committer.py"), str(directory), str(acks), "60"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_writer_killed_at_named_points_neither_loses_nor_doubles_a_row(tmp_path, seed):
    directory, acks = tmp_path / "run", tmp_path / "acks"
    acks.touch()
    points = "after-wal:0.1,claimed:0.3,renamed:0.3"
    ended = []
    while not ended or ended[-1] != 0:
        played = play(directory, acks, points=points if len(ended) < 8 else "", seed=f"{seed}-{len(ended)}")
        assert played.returncode in (0, -9), played.stderr
        ended.append(played.returncode)
        sealed = {part: part.read_bytes() for part in part_files(directory)}
        recover(directory)
        assert sealed == {part: part.read_bytes() for part in sealed}, "a part is never written again"
        found = Counter(name for part in part_files(directory) for name in ids_in(part))
        assert set(acks.read_text().split()) <= found.keys()
        assert set(found.values()) <= {1}
    assert len(ended) > 1
    assert len(found) == 60
    open_run(directory, "{}")  # as the next start would
    assert not list(tmp_path.rglob("*.tmp"))
    assert {part.name for part in (directory / "samples").iterdir()} <= {part.name for part in part_files(directory)}


def test_an_attempt_that_was_cut_off_gets_its_row_with_the_steps_it_had(tmp_path):
    open_run(tmp_path, "{}")
    ledger = Ledger(Shard().ledger_file(tmp_path))
    unfinished = make_unfinished(rich(1))
    requests = [Begun(spec=graded(sample).spec, node_id="n") for sample in range(3)] + [unfinished]
    ledger.apply(requests, [0.0] * 4, Batch(requests).packed)
    done = make_commit(graded(2))
    ledger.apply([done], [0.0], Batch([done]).packed)
    ledger.close()

    def lost(spec, record):
        steps = record.steps if record else ()
        return failed(spec.sample_index).model_copy(update={"steps": steps})

    settle_cut_off(tmp_path, lost)
    settle_cut_off(tmp_path, lost)
    found = {record.spec.sample_index: record for record in trajectories(tmp_path)}
    assert {sample: (each.status, len(each.steps)) for sample, each in found.items()} == {
        0: ("failed", 0),
        1: ("failed", 2),
        2: ("completed", 0),
    }
    assert {each.spec.sample_index: each for each in earlier_summaries(tmp_path)}[1] == summarize(found[1])


def test_the_attempts_say_where_they_were_played_and_how_they_ended(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.plan(["calc:0", "calc:1"])
    ledger.plan(["calc:1", "calc:2"])
    begun = [Begun(spec=graded(0).spec, node_id="node-1"), Begun(spec=graded(0, attempt=1).spec, node_id="node-2")]
    ledger.apply(begun, [0.0, 0.0], Batch(begun).packed)
    commit = make_commit(failed(0, attempt=1))
    ledger.apply([commit], [0.0], Batch([commit]).packed)
    assert ledger.planned() == ["calc:0", "calc:1", "calc:2"]
    assert [spec.attempt for spec in ledger.running()] == [0]
    ledger.close()
    columns = "trajectory_id, state, node_id, status, failure_cause"
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as there:
        found = there.execute(f"SELECT {columns} FROM attempts").fetchall()
    assert found == [
        ("r1:calc:0:0", "running", "node-1", None, None),
        ("r1:calc:0:1", "committed", "node-2", "failed", "sandbox"),
    ]


def test_a_ledger_that_is_gone_is_made_again_of_the_parts(tmp_path):
    committed(tmp_path, [rich(0), failed(1)])
    before = [*earlier_summaries(tmp_path)]
    (tmp_path / "ledger.sqlite").unlink()
    assert [*earlier_summaries(tmp_path)] == before
    (ack,) = committed(tmp_path, [graded(0)])
    assert ack.outcome == "fenced"


def test_a_ledger_that_is_damaged_is_named_with_what_to_do(tmp_path):
    committed(tmp_path, [rich(0)])
    (tmp_path / "ledger.sqlite").write_bytes(b"garbage" * 4000)
    with pytest.raises(StoreError, match=r"ledger.sqlite is damaged .* Move it away"):
        [*earlier_summaries(tmp_path)]
    (tmp_path / "ledger.sqlite").unlink()
    assert len([*earlier_summaries(tmp_path)]) == 1


def test_shards_have_parts_of_their_own_and_are_read_as_one_run(tmp_path):
    open_run(tmp_path, "{}")
    for number in range(3):
        committed(tmp_path, [graded(number), graded(10 + number)], shard=Shard(number, 3))
        committed(tmp_path, [graded(20 + number)], shard=Shard(number, 3))
    assert shards_of(tmp_path) == [Shard(0, 3), Shard(1, 3), Shard(2, 3)]
    assert [part_number(part) for part in part_files(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert len({record.spec for record in trajectories(tmp_path)}) == 9
    assert len([*earlier_summaries(tmp_path)]) == 9


def test_the_big_texts_of_a_very_large_row_lie_beside_it_and_come_back(tmp_path):
    open_run(tmp_path, "{}")
    big = [Message(role="tool", tool_call_id="c", content=f"{number}" * (12 << 20) + "ä") for number in range(3)]
    record = rich(0, messages=(Message(role="user", content="small"), *big, big[0]))
    committed(tmp_path, [record])
    assert len(list((tmp_path / SIDE_FOLDER).iterdir())) == 3
    (part,) = part_files(tmp_path)
    (row,) = pq.read_table(part, columns=["messages"]).to_pylist()
    assert row["messages"][0]["content"] == "small"
    assert max(len(message["content"]) for message in row["messages"]) < 20_000
    assert SIDE_FOLDER in row["messages"][1]["content"]
    (there,) = trajectories(tmp_path)
    assert (there.messages, there.metadata) == (record.messages, record.metadata)
    damaged = next((tmp_path / SIDE_FOLDER).iterdir())
    damaged.write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        next(find(tmp_path, record.spec.trajectory_id))
    damaged.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        next(trajectories(tmp_path))


def test_what_an_agent_writes_cannot_name_a_side_file(tmp_path):
    open_run(tmp_path, "{}")
    forged = Message(role="user", content='{"side_files": [["' + "0" * 64 + '", ["messages", 0, "content"]]]}')
    committed(tmp_path, [rich(0, messages=(forged,))])
    assert next(trajectories(tmp_path)).messages == (forged,)


def test_a_reader_seals_what_a_store_has_left_but_not_while_it_is_at_work(tmp_path, caplog):
    open_run(tmp_path, "{}")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    commit = make_commit(graded(0))
    ledger.apply([commit], [0.0], Batch([commit]).packed)
    assert [*trajectories(tmp_path)] == []
    ledger.close()
    (tmp_path / ".driver.lock").write_text("process 1 on another-host since 2026-01-01 00:00:00 UTC")
    assert [*trajectories(tmp_path)] == []
    assert "the run was played on another-host" in caplog.text
    (tmp_path / ".driver.lock").unlink()
    with held(tmp_path):
        assert [*trajectories(tmp_path)] == []
    assert [record.spec for record in trajectories(tmp_path)] == [graded(0).spec]


def test_a_reader_says_when_rows_cannot_be_had(tmp_path, caplog):
    open_run(tmp_path, "{}")
    committed(tmp_path, [graded(0)])
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "ledger.sqlite-wal").write_bytes(b"x")
    assert len([*trajectories(tmp_path)]) == 1
    assert "no part holds yet are left out" in caplog.text
    assert "damaged" in caplog.text


def test_only_what_is_no_json_is_shortened_in_a_very_large_row(tmp_path):
    open_run(tmp_path, "{}")
    big = [Message(role="tool", tool_call_id="c", content=f"{number}" * (12 << 20)) for number in range(3)]
    said = json.dumps({"plugin": "x" * (2 << 20)})
    committed(tmp_path, [rich(0, messages=tuple(big), plugin_data=said, environment=said)])
    (row,) = pq.read_table(part_files(tmp_path)[0]).to_pylist()
    assert [json.loads(row[name]) for name in ("plugin_data", "environment")] == [json.loads(said)] * 2
    assert len(list((tmp_path / SIDE_FOLDER).iterdir())) == 3


def test_the_ledger_of_one_store_that_is_moved_away_is_made_anew_of_its_parts(tmp_path):
    open_run(tmp_path, "{}")
    shards = [Shard(number, 3) for number in range(3)]
    for sample, shard in enumerate(shards):
        committed(tmp_path, [graded(sample)], shard=shard)
    shards[2].ledger_file(tmp_path).unlink()
    assert shards_of(tmp_path) == shards
    assert len([*earlier_summaries(tmp_path)]) == 3
    assert committed(tmp_path, [graded(2)], shard=shards[2])[0].outcome != "committed"


def test_a_part_that_was_claimed_is_not_taken_for_what_it_is_not(tmp_path):
    open_run(tmp_path, "{}")
    committed(tmp_path, [graded(0), graded(1)])
    for ledger in tmp_path.glob("ledger*"):
        ledger.unlink()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for record in (graded(0), graded(2)):
        commit = make_commit(record)
        ledger.apply([commit], [0.0], Batch([commit]).packed)
    ledger.parts.claim(1, max_rows=100, max_bytes=1 << 30)
    ledger.close()
    assert sorted(record.spec.sample_index for record in trajectories(tmp_path)) == [0, 1, 2]
    assert len([*earlier_summaries(tmp_path)]) == 3


def test_the_parts_of_several_stores_have_numbers_of_their_own():
    shards = [Shard(number, 3) for number in range(3)]
    there = []
    for number in (0, 2, 2, 1, 0, 2):
        there.append(shards[number].next(there))
        assert shards[number].has(there[-1])
    assert there == sorted(set(there))
    assert [shard.next([1, 3, 4, 10]) for shard in shards] == [13, 11, 12]
