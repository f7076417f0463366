"""What an acknowledged commit is worth."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import realwork
from realwork.dataset import store as store_module
from realwork.dataset.ack import Begun, Commit, Unfinished
from realwork.dataset.commits import make_commit, make_unfinished
from realwork.dataset.earlier import earlier_summaries, recover
from realwork.dataset.encoding import Batch
from realwork.dataset.ledger import Ledger
from realwork.dataset.part_ledger import PartLedger
from realwork.dataset.parts import ids_in, part_files
from realwork.dataset.read import trajectories
from realwork.dataset.run_directory import open_run
from realwork.dataset.sealing import Sealing
from realwork.dataset.store import WITHIN_S, TrajectoryStore
from realwork.dataset.summaries import summarize
from realwork.errors import PartMissing, StoreError
from realwork.types import Message

from .records import failed, graded, rich

HERE = Path(__file__).parent


def commit_all(directory, records):
    """The acks of `records`, all committed at once."""

    async def commit():
        async with TrajectoryStore(directory) as store:
            return await asyncio.gather(*[store.commit(make_commit(record)) for record in records])

    return asyncio.run(commit())


def ids_on_disk(directory):
    return [trajectory_id for part in part_files(directory) for trajectory_id in ids_in(part)]


def start(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(realwork.__file__).parents[1])}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_commit_is_on_the_disk_when_it_is_acknowledged_and_in_a_part_when_it_is_sealed(tmp_path):
    async def commit():
        async with TrajectoryStore(tmp_path) as store:
            ack = await store.commit(make_commit(graded()))
            copied = shutil.copytree(tmp_path, tmp_path.with_name("copied"))
            before = ids_on_disk(tmp_path)
            await store.seal()
            return ack, copied, before, ids_on_disk(tmp_path)

    ack, copied, before, after = asyncio.run(commit())
    assert (ack.trajectory_id, ack.outcome, before, after) == ("r1:calc:0:0", "committed", [], ["r1:calc:0:0"])
    assert ack.summary == summarize(graded())
    open_run(copied, "{}")
    assert [record.spec for record in trajectories(copied)] == [graded().spec]


def test_commits_that_arrive_together_go_into_few_transactions_and_one_part(tmp_path, monkeypatch):
    written = []
    apply = Ledger.apply
    monkeypatch.setattr(
        Ledger, "apply", lambda self, what, *more: written.append(len(what)) or apply(self, what, *more)
    )
    commit_all(tmp_path, [graded(sample) for sample in range(50)])
    assert (sum(written), len(written) <= 3) == (50, True)
    assert [len(ids_in(part)) for part in part_files(tmp_path)] == [50]


def test_the_first_commit_of_an_attempt_stays_and_the_same_one_again_is_a_duplicate(tmp_path):
    acks = commit_all(tmp_path, [graded(model="first"), graded(model="first"), graded(model="second")])
    acks += commit_all(tmp_path, [graded(model="first"), graded(model="after a restart")])
    assert [ack.outcome for ack in acks] == ["committed", "duplicate", "fenced", "duplicate", "fenced"]
    assert [ack.summary for ack in acks] == [summarize(graded())] * 5
    assert ids_on_disk(tmp_path) == ["r1:calc:0:0"]
    open_run(tmp_path, "{}")
    assert [record.model for record in trajectories(tmp_path)] == ["first"]


def test_an_attempt_that_a_later_one_has_taken_the_place_of_writes_nothing(tmp_path):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            store.begin(Begun(spec=graded(0).spec, node_id="a"))
            store.begin(Begun(spec=graded(0, attempt=1).spec, node_id="b"))
            zombie = await store.commit(make_commit(graded(0)))
            later = await store.commit(make_commit(graded(0, attempt=1)))
            return zombie, later, await store.commit(make_commit(graded(0)))

    zombie, later, again = asyncio.run(run())
    assert [zombie.outcome, later.outcome, again.outcome] == ["fenced", "committed", "fenced"]
    assert (zombie.summary, again.summary) == (None, None)
    assert ids_on_disk(tmp_path) == ["r1:calc:0:1"]


def test_a_rollout_that_has_its_grade_gets_no_other(tmp_path):
    acks = commit_all(tmp_path, [failed(0), graded(0, attempt=1), failed(0, attempt=2), graded(0, attempt=3)])
    assert [ack.outcome for ack in acks] == ["committed", "committed", "fenced", "fenced"]
    assert ids_on_disk(tmp_path) == ["r1:calc:0:0", "r1:calc:0:1"]


@pytest.fixture
def written(monkeypatch):
    """What any ledger is asked to write from now on, each transaction a list."""
    transactions = []
    apply = Ledger.apply
    monkeypatch.setattr(
        Ledger, "apply", lambda self, what, *more: transactions.append(what) or apply(self, what, *more)
    )
    return transactions


def test_a_newer_unfinished_record_takes_the_place_of_one_that_waits(tmp_path, written):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            for number in range(100):
                store.progress(make_unfinished(graded(number % 2, model=f"{number} steps")))
            return [(await store.unfinished(f"r1:calc:{sample}:0")).model for sample in range(2)]

    assert asyncio.run(run()) == ["98 steps", "99 steps"]
    assert len([request for each in written for request in each if isinstance(request, Unfinished)]) == 2


def test_an_unfinished_record_is_not_written_if_its_row_comes_soon(tmp_path, written):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            for sample in range(2):
                store.begin(Begun(spec=graded(sample).spec, node_id="node-1"))
                store.progress(make_unfinished(graded(sample)))
            for sample in range(2):
                await store.commit(make_commit(graded(sample)))

    asyncio.run(run())
    assert [[type(request) for request in each] for each in written] == [[Begun, Begun, Commit], [Commit]]


def test_who_asks_for_an_unfinished_record_has_that_one_written_and_no_other(tmp_path, written):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            for sample in range(3):
                store.progress(make_unfinished(graded(sample)))
            await store.unfinished("r1:calc:1:0")
            return [request.trajectory_id for each in written for request in each if isinstance(request, Unfinished)]

    assert asyncio.run(run()) == ["r1:calc:1:0"]


def test_rows_and_unfinished_records_are_written_in_the_order_in_which_they_came(tmp_path, written, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_REQUEST_BYTES", 1)  # each has a transaction of its own

    async def run():
        async with TrajectoryStore(tmp_path) as store:
            for sample in range(1, 4):
                store.progress(make_unfinished(graded(sample)))
            await asyncio.sleep(0.9 * WITHIN_S)
            committed = asyncio.create_task(store.commit(make_commit(graded(0))))
            await asyncio.sleep(0)
            for sample in range(4, 8):
                store.progress(make_unfinished(graded(sample)))
            await committed

    asyncio.run(run())
    kinds = [type(request) for each in written for request in each]
    assert kinds.index(Commit) <= 3


def test_an_unfinished_record_stays_when_its_row_is_refused(tmp_path):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            store.progress(make_unfinished(graded(0, model="2 steps")))
            with pytest.raises(StoreError, match="changed_outside"):
                await store.commit(make_commit(graded(0, changed_outside=1 << 40)))
            return await store.unfinished("r1:calc:0:0")

    assert asyncio.run(run()).model == "2 steps"


def test_what_nobody_waits_for_is_written_soon_when_nothing_else_comes(tmp_path, written):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            store.begin(Begun(spec=graded(0).spec, node_id="node-1"))
            store.progress(make_unfinished(graded(0)))
            await asyncio.sleep(0.2)
            before = len(written)
            await asyncio.sleep(WITHIN_S)
            return before, len(written)

    assert asyncio.run(run()) == (0, 1)


def test_rows_that_come_steadily_are_not_written_into_a_part_each(tmp_path):
    async def run():
        async with TrajectoryStore(tmp_path, sealing=Sealing(age_s=0.5)) as store:
            began = time.monotonic()
            samples = count()
            while time.monotonic() < began + 2.2:
                await store.commit(make_commit(graded(next(samples))))
            return next(samples)

    rows = asyncio.run(run())
    assert len(ids_on_disk(tmp_path)) == rows > 20
    assert 3 <= len(part_files(tmp_path)) <= 8


def test_a_part_that_the_ledger_could_not_note_is_never_written_again(tmp_path, monkeypatch):
    seal = PartLedger.seal

    def refuse(self, part):
        raise StoreError("the disk is full")

    async def run():
        async with TrajectoryStore(tmp_path) as store:
            await store.commit(make_commit(graded(0)))
            monkeypatch.setattr(PartLedger, "seal", refuse)
            for sample in (1, 2):
                with pytest.raises(StoreError, match="full"):
                    await store.seal()
                await store.commit(make_commit(graded(sample)))
            copied = shutil.copytree(tmp_path, tmp_path.with_name("copied-unnoted"))
            written = {part: part.read_bytes() for part in part_files(tmp_path)}
            monkeypatch.setattr(PartLedger, "seal", seal)
        return copied, written

    copied, written = asyncio.run(run())
    assert {part: part.read_bytes() for part in written} == written
    recover(copied)
    for directory in (tmp_path, copied):
        assert ids_on_disk(directory) == ["r1:calc:0:0", "r1:calc:1:0", "r1:calc:2:0"]


def test_a_part_that_is_gone_is_an_error_and_not_a_run_without_its_rows(tmp_path):
    open_run(tmp_path, "{}")
    commit_all(tmp_path, [graded(0)])
    part_files(tmp_path)[0].rename(tmp_path / "elsewhere")
    with pytest.raises(PartMissing, match=r"part-000001\.parquet is gone"):
        TrajectoryStore(tmp_path)
    for _ in range(2):
        with pytest.raises(PartMissing):
            [*trajectories(tmp_path)]
    with pytest.raises(PartMissing):
        [*earlier_summaries(tmp_path)]
    (tmp_path / "elsewhere").rename(tmp_path / "trajectories" / "part-000001.parquet")
    assert len([*trajectories(tmp_path)]) == 1


def test_a_restart_goes_on_with_the_numbers_and_removes_what_was_left_half_written(tmp_path):
    commit_all(tmp_path, [graded(0)])
    before = {part: part.read_bytes() for part in part_files(tmp_path)}
    (tmp_path / f".part-000002.parquet.{'0' * 32}.tmp").write_bytes(b"half")
    commit_all(tmp_path, [graded(1)])
    assert [part.name for part in part_files(tmp_path)] == ["part-000001.parquet", "part-000002.parquet"]
    assert before == {part: part.read_bytes() for part in before}
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_row_says_how_long_it_waited_for_the_store(tmp_path):
    commit_all(tmp_path, [graded()])
    assert 0 < pq.read_table(part_files(tmp_path)[0])["timing"][0]["store_s"].as_py() < 10


def test_a_commit_that_is_no_row_fails_alone(tmp_path):
    good, bad, broken, also_good = (make_commit(graded(sample)) for sample in (0, 1 << 40, 3, 2))
    broken = broken.model_copy(update={"content": broken.content[: len(broken.content) // 2]})

    async def commit():
        async with TrajectoryStore(tmp_path) as store:
            return await asyncio.gather(*map(store.commit, (good, bad, broken, also_good)), return_exceptions=True)

    first, second, third, fourth = asyncio.run(commit())
    assert isinstance(second, StoreError)
    assert "sample_index" in str(second)
    assert isinstance(third, StoreError)
    assert [first.outcome, fourth.outcome] == ["committed", "committed"]
    assert ids_on_disk(tmp_path) == ["r1:calc:0:0", "r1:calc:2:0"]


def test_no_text_can_fail_a_commit(tmp_path):
    texts = ["a\udc80b", "nul\0nul", "\x1b[31mred\x1b[0m", "x" * 5_000_000, "", "\ud83d \U0001f600 \u2028"]
    records = [graded(number, messages=(Message(role="user", content=text),)) for number, text in enumerate(texts)]
    commit_all(tmp_path, records)
    open_run(tmp_path, "{}")
    contents = [record.messages[0].content for record in trajectories(tmp_path)]
    assert contents == ["a\ufffdb", *texts[1:5], "\ufffd \U0001f600 \u2028"]


def test_many_long_rows_are_written_in_row_groups_of_bounded_size(tmp_path):
    text = "0123456789" * 1_000_000
    commit_all(tmp_path, [graded(n, messages=(Message(role="user", content=text),)) for n in range(8)])
    sizes = [
        metadata.row_group(group).total_byte_size
        for metadata in map(pq.read_metadata, part_files(tmp_path))
        for group in range(metadata.num_row_groups)
    ]
    assert len(sizes) >= 2
    assert max(sizes) < 2 * (32 << 20)


def test_unfinished_records_replace_each_other_survive_a_restart_and_end_with_the_commit(tmp_path):
    def progress(store, record):
        store.progress(make_unfinished(record))

    async def run():
        async with TrajectoryStore(tmp_path) as store:
            progress(store, graded(0, model="1 step"))
            progress(store, graded(0, model="2 steps"))
            progress(store, graded(1))
            await store.commit(make_commit(graded(1)))
            progress(store, graded(1))
        async with TrajectoryStore(tmp_path) as store:
            return [await store.unfinished(f"r1:calc:{sample}:0") for sample in range(3)]

    lost, committed, unknown = asyncio.run(run())
    assert (lost.model, committed, unknown) == ("2 steps", None, None)


def test_a_commit_that_is_cancelled_does_not_hold_up_the_others(tmp_path):
    async def run():
        async with TrajectoryStore(tmp_path) as store:
            first, second = (asyncio.create_task(store.commit(make_commit(graded(sample)))) for sample in range(2))
            await asyncio.sleep(0)
            first.cancel()
            return await second

    assert asyncio.run(run()).outcome == "committed"


def test_closing_writes_what_waits_and_refuses_what_comes_later(tmp_path):
    async def run():
        store = TrajectoryStore(tmp_path)
        waiting = [asyncio.create_task(store.commit(make_commit(graded(sample)))) for sample in range(20)]
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert all(task.done() for task in waiting)
        with pytest.raises(StoreError, match="closed"):
            await store.commit(make_commit(graded(99)))

    asyncio.run(run())
    assert len(ids_on_disk(tmp_path)) == 20


def test_a_second_writer_is_kept_out(tmp_path):
    async def run():
        async with TrajectoryStore(tmp_path):
            with pytest.raises(StoreError, match="another process writes"):
                TrajectoryStore(tmp_path, lock_wait_s=0.2)
        async with TrajectoryStore(tmp_path):
            pass

    asyncio.run(run())


def test_a_broken_part_is_named(tmp_path):
    (tmp_path / "trajectories").mkdir()
    (tmp_path / "trajectories" / "part-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"part-000001\.parquet"):
        TrajectoryStore(tmp_path)


def test_readers_beside_a_writer_see_complete_files_only(tmp_path):
    open_run(tmp_path, "{}")
    done = threading.Event()
    counts = []

    def read_again_and_again():
        while not done.is_set():
            parts = sorted((tmp_path / "trajectories").glob("*.parquet"))
            counts.append(sum(pq.read_table(part).num_rows for part in parts))

    async def commit():
        async with TrajectoryStore(tmp_path, sealing=Sealing(rows=20)) as store:
            gate = asyncio.Semaphore(8)

            async def one(sample):
                async with gate:
                    await store.commit(make_commit(rich(sample)))

            await asyncio.gather(*[one(sample) for sample in range(200)])

    errors = []
    reader = threading.Thread(target=lambda: _note_errors(read_again_and_again, errors))
    reader.start()
    asyncio.run(commit())
    done.set()
    reader.join()
    assert errors == []
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert sum(1 for _ in trajectories(tmp_path)) == 200


def _note_errors(function, errors):
    try:
        function()
    except Exception as error:  # noqa: BLE001 - the assertion of the test is that there is none
        errors.append(error)


def test_every_acknowledged_row_survives_the_kill_of_the_writer(tmp_path):
    directory, acks = tmp_path / "run", tmp_path / "acks"
    acks.touch()
    for round_number in range(1, 4):
        process = start("committer.py", directory, acks)
        end = time.monotonic() + 60
        while acks.read_text().count("\n") < round_number * 60 and time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        process.communicate()
        recover(directory)
        rows = Counter(ids_on_disk(directory))
        acknowledged = set(acks.read_text().split())
        assert len(acknowledged) >= 60
        assert acknowledged <= rows.keys()
        assert set(rows.values()) == {1}


def test_a_full_disk_fails_every_waiting_commit_leaves_nothing_and_passes(tmp_path):
    process = start("full_disk.py", tmp_path)
    said, problem = process.communicate(timeout=60)
    assert process.returncode == 0, problem
    outcome = json.loads(said)
    assert outcome["before"] == "committed"
    assert all("ledger.sqlite could not be written" in text for text in outcome["full"]), outcome
    assert outcome["left"] == []
    assert outcome["after"] == ["committed", "duplicate"]
    assert ids_on_disk(tmp_path) == ["r1:calc:0:0", "r1:calc:1:0"]


def test_rows_that_do_not_fit_for_a_reason_nobody_finds_are_refused(monkeypatch):
    monkeypatch.setattr("realwork.dataset.encoding._unfit", lambda rows, schema: None)
    batch = Batch([make_commit(graded(0)), make_commit(graded(1 << 40))])
    assert sorted(batch.errors) == [0, 1]
