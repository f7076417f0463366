"""Snapshots of a container: what comes back of it, what does not, and that nothing else is ever removed."""

import asyncio
import shutil
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from itertools import pairwise

import pytest

from realwork.errors import ImageError, SandboxError
from realwork.sandbox import labels, snapshots
from realwork.sandbox.docker import DockerSandbox, open_container
from realwork.sandbox.engine import connect, open_engine
from realwork.sandbox.garbage import collect_garbage
from realwork.sandbox.local import open_local
from realwork.sandbox.refusals import NoAnswer

from .helpers import IMAGE, make_spec, run, use

WORK_OF_AN_AGENT = """
printf 'two\\nlines' > 'a file'; mkdir -p deep/er; echo x > deep/er/x; chmod 640 'a file'; chown 7:8 'a file'
printf '#!/bin/sh\\necho installed' > /usr/local/bin/tool; chmod 755 /usr/local/bin/tool; ln -s 'a file' link
rm /etc/debian_version; echo old > /tmp/t; mkfifo pipe
cp /bin/sleep /usr/local/bin/lingering; lingering 300 >/dev/null 2>&1 &
"""
LOOK = """
cat 'a file' link deep/er/x; stat -c '%a %u %g %F' 'a file' pipe; tool; ls /etc/debian_version; cat /tmp/t
echo "$CANARY"; grep -l lingering /proc/[0-9]*/comm; true
"""


@pytest.fixture
def run_id(docker_image):
    """The id of a run whose snapshots are gone when the test has ended."""
    run_id = f"test-{uuid.uuid4().hex[:12]}"
    yield run_id

    async def clean():
        async with open_engine() as engine:
            await snapshots.remove_all(engine, run_id=run_id, which=lambda found: True)

    asyncio.run(clean())
    client = connect()
    assert snapshots_of(client, run_id) == []
    client.close()


@pytest.fixture
def client(docker_image):
    client = connect()
    yield client
    client.close()


def snapshots_of(client, run_id):
    return client.images(filters={"label": [snapshots.SNAPSHOT, f"{labels.RUN}={run_id}"]})


def spec_of(run_id, **fields):
    given = fields.pop("labels", {})
    return make_spec(labels={labels.RUN: run_id, labels.ROLLOUT: "e:0"} | given, **fields)


@contextmanager
def driver():
    """A process that ends with the block, and its label: until then no reaper on this engine takes what it drives."""
    code = "from realwork.sandbox.labels import this_process; print(this_process().as_label(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process.stdout.readline().decode().strip()
        process.kill()


def test_a_snapshot_whose_sparse_files_would_fill_the_disk_is_refused(client, run_id):
    async def scenario(sandbox):
        await run(sandbox, "truncate -s 1T giant || truncate -s 100G giant")
        before, began = shutil.disk_usage("/").free, time.monotonic()
        with pytest.raises(SandboxError, match="is refused"):
            await sandbox.snapshot()
        assert time.monotonic() - began < 10
        assert before - shutil.disk_usage("/").free < 1 << 30
        return await run(sandbox, "echo fine")

    assert use(open_container, scenario, **spec_of(run_id).model_dump()).stdout == b"fine\n"
    assert snapshots_of(client, run_id) == []


def test_a_container_restored_from_a_snapshot_has_every_file_and_no_process(run_id):
    async def scenario():
        spec = spec_of(run_id, environment_variables={"CANARY": "sk-canary"})
        async with open_container(spec) as sandbox:
            await run(sandbox, WORK_OF_AN_AGENT)
            before = await run(sandbox, LOOK)
            snapshot = await sandbox.snapshot()
            await run(sandbox, "rm 'a file'; echo new > /tmp/t")
        again = spec_of(run_id, environment_variables={"CANARY": "sk-canary"})
        async with DockerSandbox.restore(again, snapshot.id) as sandbox:
            return snapshot, before, await run(sandbox, LOOK)

    snapshot, before, after = asyncio.run(scenario())
    *seen, process = before.stdout.splitlines()
    assert process.startswith(b"/proc/")
    assert b"installed" in seen
    assert b"sk-canary" in seen
    assert b"640 7 8 regular file" in seen
    assert after.stdout.splitlines() == seen
    assert 10_000 < snapshot.size_bytes < 1 << 20
    assert abs(snapshot.taken_at.timestamp() - time.time()) < 60


def test_a_snapshot_holds_no_value_of_a_variable_and_the_labels_of_its_rollout(client, run_id):
    spec = spec_of(run_id, environment_variables={"CANARY": "sk-canary", "PATH": "/usr/bin:/bin"})
    snapshot = use(open_container, lambda sandbox: sandbox.snapshot(), **spec.model_dump())
    (found,) = snapshots_of(client, run_id)
    config = client.inspect_image(snapshot.id)["Config"]
    assert found["Id"] == snapshot.id
    assert "sk-canary" not in str(config) + str(client.history(snapshot.id))
    assert found["Labels"][snapshots.SNAPSHOT] == snapshots.TEMPORARY
    assert (found["Labels"][labels.ROLLOUT], found["Labels"][labels.OWNER]) == ("e:0", "")


def test_a_snapshot_of_a_restored_container_stands_on_its_own(run_id):
    async def scenario():
        async with open_container(spec_of(run_id)) as sandbox:
            await run(sandbox, "echo 1 > one")
            first = await sandbox.snapshot()
        async with DockerSandbox.restore(spec_of(run_id), first.id) as sandbox:
            await run(sandbox, "echo 2 > two")
            second = await sandbox.snapshot()
        async with open_engine() as engine:
            await snapshots.remove_all(engine, run_id=run_id, which=lambda found: False)
        async with DockerSandbox.restore(spec_of(run_id), second.id) as sandbox:
            return await run(sandbox, "cat one two")

    assert asyncio.run(scenario()).stdout == b"1\n2\n"


def test_what_runs_stands_still_no_longer_than_the_snapshot_takes(run_id):
    ticking = "while :; do date +%s.%N >> ticks; sleep 0.01; done >/dev/null 2>&1 &"

    async def scenario(sandbox):
        await run(sandbox, ticking)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await sandbox.snapshot()
        took = time.monotonic() - began
        await asyncio.sleep(0.5)
        return took, (await run(sandbox, "cat ticks")).stdout.split()

    took, ticks = use(open_container, scenario, **spec_of(run_id).model_dump())
    times = [float(tick) for tick in ticks]
    longest = max(after - before for before, after in pairwise(times))
    assert longest < took + 0.2
    assert times[-1] - times[0] > took + 0.8


def test_a_snapshot_that_takes_too_long_is_given_up_and_the_container_goes_on(client, run_id):
    async def scenario():
        async with open_engine() as engine, open_container(spec_of(run_id), engine=engine) as sandbox:
            await run(sandbox, "head -c 300000000 /dev/urandom > big")
            container_id = client.containers(filters={"label": f"{labels.RUN}={run_id}"})[0]["Id"]
            with pytest.raises(NoAnswer):
                await snapshots.take(engine, container_id, variables=(), lifetime_s=60, keep=False, timeout_s=0.3)
            began = time.monotonic()
            result = await run(sandbox, "stat -c %s big")
            took = time.monotonic() - began
            return result, took

    result, took = asyncio.run(scenario())
    for thread in threading.enumerate():
        if thread.name.startswith("engine"):
            thread.join(30)  # the late answer has come
    assert result.stdout == b"300000000\n"
    assert took < 5
    assert snapshots_of(client, run_id) == []


def test_an_image_with_a_volume_gives_no_snapshot(client, run_id):
    base = client.create_container(IMAGE, ["true"])["Id"]
    image = client.commit(base, conf={"Volumes": {"/data": {}}})["Id"]
    client.remove_container(base)
    try:
        spec = spec_of(run_id, image=image)
        assert use(open_container, lambda sandbox: sandbox.snapshot(), **spec.model_dump()) is None
    finally:
        client.remove_image(image, noprune=True)


def test_removing_a_snapshot_leaves_the_image_it_was_made_of_even_without_a_name(client, run_id):
    base = client.create_container(IMAGE, ["true"])["Id"]
    image = client.commit(base)["Id"]
    client.remove_container(base)

    async def scenario(sandbox):
        return await sandbox.snapshot()

    try:
        snapshot = use(open_container, scenario, **spec_of(run_id, image=image).model_dump())

        async def remove_twice(sandbox):
            await sandbox.remove_snapshot(snapshot.id)
            await sandbox.remove_snapshot(snapshot.id)

        use(open_container, remove_twice)
        assert snapshots_of(client, run_id) == []
        assert client.inspect_image(image)["Id"] == image
    finally:
        client.remove_image(image, noprune=True)


def test_what_somebody_made_of_a_snapshot_stays(client, run_id):
    spec = spec_of(run_id, deadline_s=1.0)
    snapshot = use(open_container, lambda sandbox: sandbox.snapshot(), **spec.model_dump())
    name = f"test-mine-{uuid.uuid4().hex[:8]}"
    client.tag(snapshot.id, name)

    async def clean():
        async with open_engine() as engine:
            return await collect_garbage(engine, everything=True, run_id=run_id)

    try:
        assert [each.partition(":")[0] for each in asyncio.run(clean()).removed] == ["realwork/snapshot"]
        assert client.inspect_image(name)["RepoTags"] == [f"{name}:latest"]
        assert asyncio.run(clean()).removed == ()
    finally:
        client.remove_image(name, noprune=True)


def test_a_snapshot_in_use_stays_and_says_so(client, run_id):
    async def scenario():
        async with open_container(spec_of(run_id)) as sandbox:
            snapshot = await sandbox.snapshot()
        async with DockerSandbox.restore(spec_of(run_id), snapshot.id) as sandbox:
            with pytest.raises(SandboxError, match="removing snapshot"):
                await sandbox.remove_snapshot(snapshot.id)
            return (await run(sandbox, "echo alive")).stdout

    assert asyncio.run(scenario()) == b"alive\n"
    assert len(snapshots_of(client, run_id)) == 1


def test_a_snapshot_that_is_not_here_cannot_be_restored(docker_image):
    async def scenario():
        async with DockerSandbox.restore(make_spec(), "sha256:" + "0" * 64):
            pass

    with pytest.raises(ImageError):
        asyncio.run(scenario())


def test_the_garbage_collection_takes_snapshots_of_dead_runs_and_leaves_those_of_others_and_kept_ones(client, run_id):
    alive = labels.this_process().as_label()

    async def snapshot_of(driver, *, keep=False):
        async with open_container(spec_of(run_id, labels={labels.DRIVER: driver})) as sandbox:
            return (await sandbox.snapshot(keep=keep)).id

    async def scenario():
        with driver() as dying:
            lost, wanted, kept = await snapshot_of(dying), await snapshot_of(alive), await snapshot_of(dying, keep=True)
        async with open_engine() as engine:
            reports = [await collect_garbage(engine, run_id=run_id) for _ in range(2)]
            left = {found["Id"] for found in snapshots_of(client, run_id)}
            await collect_garbage(engine, run_id=run_id, everything=True)
        return lost, {wanted, kept}, left, reports

    lost, expected, left, reports = asyncio.run(scenario())
    assert left == expected
    assert lost not in left
    assert [len(report.kept) for report in reports] == [1, 1]
    assert reports[1].removed == ()
    assert snapshots_of(client, run_id) == []


def test_a_local_sandbox_takes_no_snapshot():
    assert use(open_local, lambda sandbox: sandbox.snapshot()) is None
