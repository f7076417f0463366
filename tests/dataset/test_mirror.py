"""A run in object storage, against a server that speaks S3."""

import asyncio
import os
import socket
import uuid

import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from realwork.config import is_url
from realwork.dataset.arrow import read, samples
from realwork.dataset.commits import make_commit
from realwork.dataset.compact import compact
from realwork.dataset.fetched import fetched, runs_below
from realwork.dataset.mirror import CHANGING, Mirror
from realwork.dataset.objects import Objects
from realwork.dataset.places import url_of_run, working_copy, working_copy_of_run
from realwork.dataset.read import trajectories
from realwork.dataset.run_directory import held, open_run
from realwork.dataset.shards import Shard
from realwork.dataset.store import TrajectoryStore
from realwork.errors import InputError, StoreError

from .records import graded, rich


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def url(server, monkeypatch):
    """Of a bucket that is empty."""
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"b{uuid.uuid4().hex}"
    files, root = fs.FileSystem.from_uri(f"s3://{bucket}?allow_bucket_creation=true&region=us-east-1")
    files.create_dir(root)
    return f"s3://{bucket}/runs?region=us-east-1"


def test_what_names_object_storage():
    assert [is_url(each) for each in ("s3://b/x", "gs://b/x", "/s3/b", "trajectories", "s3:/b")] == [True, True] + [
        False
    ] * 3
    assert url_of_run("s3://b/x/?region=r", "one") == "s3://b/x/one?region=r"
    assert working_copy("s3://b/x/") == working_copy("s3://b/x") != working_copy("s3://b/y")
    assert working_copy_of_run("s3://b/x/one?region=r") == working_copy("s3://b/x?region=r") / "one"


def commit(directory, url, *records):
    async def committed():
        async with TrajectoryStore(directory, mirror=Mirror(directory, url)) as store:
            for record in records:
                await store.commit(make_commit(record))

    asyncio.run(committed())


def objects(url):
    files, root = fs.FileSystem.from_uri(url)
    found = files.get_file_info(fs.FileSelector(root, recursive=True))
    return {each.path.removeprefix(f"{root}/"): each.size for each in found if each.is_file}


def test_every_finished_file_is_put_there_and_a_run_is_taken_up_from_there_on_another_node(tmp_path, url):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    commit(here, url, rich(0), graded(1))
    names = {
        "run.json",
        "README.md",
        "ledger.sqlite",
        "trajectories/part-000001.parquet",
        "samples/part-000001.parquet",
    }
    before = objects(url)
    assert before.keys() == names
    files, root = fs.FileSystem.from_uri(url)
    assert pq.read_table(f"{root}/trajectories", filesystem=files).num_rows == read(url).count_rows() == 2
    assert samples(url).count_rows() == 1
    Mirror(elsewhere, url).fetch()
    commit(elsewhere, url, graded(1), graded(2))
    after = objects(url)
    assert after.keys() == names | {"trajectories/part-000002.parquet"}
    assert {name: after[name] for name in before if "part" in name} == {
        name: size for name, size in before.items() if "part" in name
    }
    assert [record.spec.sample_index for record in trajectories(elsewhere)] == [0, 1, 2]
    assert [record.spec.sample_index for record in trajectories(here)] == [0, 1]
    assert not [path for path in elsewhere.iterdir() if path.name.startswith(".copy-")]


def test_a_copy_that_was_played_before_another_one_was_is_moved_aside_and_the_other_gone_on_from(tmp_path, url):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    with held(here), Mirror(here, url).marked():
        assert Mirror(here, url).fetch() is None
        commit(here, url, graded(0))
    with held(elsewhere):
        assert Mirror(elsewhere, url).fetch() is None
        with Mirror(elsewhere, url).marked():
            commit(elsewhere, url, graded(1), graded(2))
    with held(here):
        aside = Mirror(here, url).fetch()
        with Mirror(here, url).marked():
            commit(here, url, graded(3))
        assert Mirror(here, url).fetch() is None
    assert [record.spec.sample_index for record in trajectories(aside)] == [0]
    assert [record.spec.sample_index for record in trajectories(here)] == [0, 1, 2, 3]
    assert read(url).to_table(columns=["sample_index"]).column(0).to_pylist() == [0, 1, 2, 3]
    with held(elsewhere):
        assert Mirror(elsewhere, url).fetch() is not None


def test_a_copy_that_was_never_played_makes_room_for_what_is_there(tmp_path, url):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    with held(here), Mirror(here, url).marked():
        commit(here, url, graded(0))
        with held(elsewhere):
            Mirror(elsewhere, url).fetch()
        commit(here, url, graded(1))
    with held(elsewhere):
        assert Mirror(elsewhere, url).fetch() is None
        assert [path.name for path in tmp_path.iterdir() if "older" in path.name] == []
    assert [record.spec.sample_index for record in trajectories(elsewhere)] == [0, 1]


def test_a_copy_that_is_overtaken_puts_nothing_more_there(tmp_path, url, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    monkeypatch.setattr("realwork.dataset.claim.FRESH_S", 0.0)
    with held(here), Mirror(here, url).marked():
        commit(here, url, graded(0))
        late = Mirror(elsewhere, url)
        later = Mirror(tmp_path / "later", url)
        with held(elsewhere), held(tmp_path / "later"):
            late.fetch()
            later.fetch()
            with late.marked():
                commit(elsewhere, url, graded(1))
            with pytest.raises(InputError, match="played elsewhere a moment ago"), later.marked():
                pass
        with pytest.raises(StoreError, match="was taken up in another place"):
            commit(here, url, graded(2))
    assert read(url).to_table(columns=["sample_index"]).column(0).to_pylist() == [0, 1]
    assert [record.spec.sample_index for record in trajectories(here)] == [0, 2]


def test_another_copy_on_the_same_host_is_refused_while_one_is_played(tmp_path, url):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    with held(here), Mirror(here, url).marked():
        with pytest.raises(InputError, match="is being played by process"):
            Mirror(elsewhere, url).check()
        Mirror(here, url).check()


def test_what_is_gone_here_for_another_reason_stays_there(tmp_path, url):
    here = tmp_path / "here"
    open_run(here, '{"run_id": "r"}')
    commit(here, url, rich(0))
    commit(here, url, graded(1))
    for path in (here / "samples" / "part-000001.parquet", here / "trajectories" / "part-000002.parquet"):
        path.unlink()
    for ledger in here.glob("ledger*"):
        ledger.unlink()
    commit(here, url, graded(2))
    there = {name for name in objects(url) if "/part-" in name}
    assert there >= {"samples/part-000001.parquet", "trajectories/part-000002.parquet"}


def test_a_node_that_dies_between_a_part_and_its_ledger_neither_loses_nor_doubles_a_row(tmp_path, url):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')

    async def committed():
        mirror = Mirror(here, url)
        async with TrajectoryStore(here) as store:
            await store.commit(make_commit(graded(0)))
            mirror.put_with(store._ledger, is_last=True)  # the rows are in the ledger alone
            await store.seal()
            mirror.put_with(store._ledger)

    asyncio.run(committed())
    Mirror(elsewhere, url).fetch()
    assert len([*trajectories(elsewhere)]) == 1
    commit(elsewhere, url, graded(0), graded(1))
    assert [record.spec.sample_index for record in trajectories(elsewhere)] == [0, 1]


def test_each_part_of_a_run_with_several_stores_is_put_there_once(tmp_path, url, monkeypatch):
    put = []
    upload = Objects.upload
    monkeypatch.setattr(Objects, "upload", lambda self, name, path: put.append(name) or upload(self, name, path))
    open_run(tmp_path, "{}")
    shards = [Shard(number, 2) for number in range(2)]

    async def committed():
        stores = [TrajectoryStore(tmp_path, shard=each, mirror=Mirror(tmp_path, url, shard=each)) for each in shards]
        for sample, store in enumerate(stores):
            await store.commit(make_commit(graded(sample)))
        for store in stores:
            await store.close()

    Mirror(tmp_path, url).announce(shard.ledger_file(tmp_path) for shard in shards)
    assert objects(url) == {"ledger-0-of-2.sqlite": 0, "ledger-1-of-2.sqlite": 0}
    asyncio.run(committed())
    assert sorted(name for name in put if "/part-" in name) == [f"trajectories/part-00000{n}.parquet" for n in (1, 2)]


@pytest.mark.parametrize("cut", range(4))
def test_a_compaction_cut_off_at_any_object_loses_and_doubles_no_row(tmp_path, url, monkeypatch, cut):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    for number in range(3):
        commit(here, url, graded(number))
    compact(here)
    left = [cut]

    def until_cut(method):
        def call(self, name, *more):
            left[0] -= name not in CHANGING
            if left[0] < 0:
                raise StoreError("the network is gone")
            return method(self, name, *more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "upload", until_cut(Objects.upload))
        patch.setattr(Objects, "remove", until_cut(Objects.remove))
        with pytest.raises(StoreError, match="gone"):
            Mirror(here, url).follow()
    assert set(read(url).to_table(columns=["sample_index"]).column(0).to_pylist()) == {0, 1, 2}
    Mirror(elsewhere, url).fetch()
    commit(elsewhere, url, graded(3))
    assert [record.spec.sample_index for record in trajectories(elsewhere)] == [0, 1, 2, 3]
    assert read(url).count_rows() == 4


def test_several_runs_below_a_url_are_read_together(tmp_path, url, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for run in ("a", "b"):
        open_run(tmp_path / run, f'{{"run_id": "{run}"}}')
        commit(tmp_path / run, url_of_run(url, run), graded(run=run))
    assert runs_below(url) == [url_of_run(url, "a"), url_of_run(url, "b")]
    assert runs_below(url_of_run(url, "b")) == [url_of_run(url, "b")]
    assert read(url).count_rows() == 2
    assert [record.spec.run_id for record in trajectories(url)] == ["a", "b"]


def test_a_server_that_is_gone_fails_the_close_and_leaves_every_row_here(tmp_path, url, monkeypatch):
    open_run(tmp_path / "r", "{}")
    mirror = Mirror(tmp_path / "r", url)
    monkeypatch.setattr(mirror._objects, "files", fs.SubTreeFileSystem("/nowhere", fs.LocalFileSystem()))

    async def committed():
        async with TrajectoryStore(tmp_path / "r", mirror=mirror) as store:
            await store.commit(make_commit(graded(0)))

    with pytest.raises(StoreError, match="could not be put to s3://"):
        asyncio.run(committed())
    assert len([*trajectories(tmp_path / "r")]) == 1
    commit(tmp_path / "r", url)
    assert "trajectories/part-000001.parquet" in objects(url)


def test_a_url_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be used"):
        Mirror(tmp_path, "s3://b/x?unknown=1")


def test_a_run_that_another_host_plays_is_refused_until_that_host_has_been_silent(tmp_path, url, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    open_run(here, '{"run_id": "r"}')
    with held(here), Mirror(here, url).marked():
        Mirror(here, url).check()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "another-host")
            with pytest.raises(InputError, match=f"is being played by process {os.getpid()} on .* since"):
                Mirror(elsewhere, url).check()
            patch.setattr("realwork.dataset.claim.FRESH_S", 0.0)
            Mirror(elsewhere, url).check()
    assert ".realwork-played-by" not in objects(url)


def test_a_run_is_fetched_to_be_read_and_what_is_gone_there_goes_here(tmp_path, url, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = []
    with pytest.raises(InputError, match="holds no run"):
        fetched(url, said.append)
    here = tmp_path / "here"
    open_run(here, '{"run_id": "r"}')
    for number in range(3):
        commit(here, url_of_run(url, "r"), graded(number))
    all_runs = fetched(url, said.append)
    one = fetched(url_of_run(url, "r"), said.append)
    assert [len([*trajectories(each)]) for each in (all_runs, one)] == [3, 3]
    assert len(said) == 2
    assert (all_runs.name, one.name) == ("runs", "r"), "people see them by their names"
    compact(here)
    Mirror(here, url_of_run(url, "r")).follow()
    assert {name for name in objects(url) if "/part-" in name} == {"r/trajectories/part-000001.parquet"}
    again = fetched(url_of_run(url, "r"), said.append)
    assert again == one
    assert len(list((again / "trajectories").iterdir())) == 1
    assert [record.spec.sample_index for record in trajectories(again)] == [0, 1, 2]
    assert len(said) == 3
    assert not (again / "ledger.sqlite").exists()


def test_objects_that_are_no_files_of_a_run_are_not_fetched(tmp_path, url, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files, root = fs.FileSystem.from_uri(url)
    for name in ("run.json", "other.parquet", "../run.json", "trajectories/part-1.parquet.tmp"):
        with files.open_output_stream(f"{root}/{name}") as file:
            file.write(b"{}")
    there = fetched(url, print)
    Mirror(tmp_path / "copy", url).fetch()
    for directory in (there, tmp_path / "copy"):
        assert [path.name for path in directory.rglob("*")] == ["run.json"]
