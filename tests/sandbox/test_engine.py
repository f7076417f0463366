"""The engine itself: not there, too slow, without an image; and what is left behind on it."""

import asyncio
import io
import socket
import subprocess
import sys
import tarfile
import threading
import time
import uuid

import pytest

from realwork.errors import ImageError, SandboxError
from realwork.sandbox import labels
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect, engine_problem, open_engine
from realwork.sandbox.garbage import collect_garbage
from realwork.sandbox.image import check_shell, ensure_image
from realwork.sandbox.refusals import NoAnswer
from realwork.sandbox.yardstick import raw_container

from .helpers import make_spec, run, use

ABANDON = """
import asyncio, os, sys
from realwork.sandbox.base import SandboxSpec
from realwork.sandbox.docker import open_container

async def main():
    async with open_container(SandboxSpec.model_validate_json(sys.argv[1])):
        print("open", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def with_engine(scenario):
    async def main():
        async with open_engine() as engine:
            return await scenario(engine)

    return asyncio.run(main())


@pytest.fixture
def client(docker_image):
    client = connect()
    yield client
    client.close()


@pytest.fixture
def empty_image(client):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    client.import_image_from_data(buffer.getvalue(), repository="realwork/test-empty", tag="latest")
    yield "realwork/test-empty:latest"
    client.remove_image("realwork/test-empty:latest", force=True)


def test_a_missing_socket_is_named_with_what_to_do(tmp_path):
    problem = engine_problem(f"unix://{tmp_path}/none.sock")
    assert f"{tmp_path}/none.sock" in problem
    assert "cluster/setup.sh" in problem


def test_a_socket_where_nobody_listens_is_named_with_what_to_do(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/dead.sock")
    problem = engine_problem(f"unix://{tmp_path}/dead.sock")
    assert "nothing listens" in problem
    assert "cluster/setup.sh" in problem


def test_an_engine_that_answers_has_no_problem(docker_image):
    assert engine_problem() is None


def test_a_request_without_an_answer_ends_in_time_and_its_late_result_is_discarded(docker_image):
    late = []

    def slow():
        time.sleep(0.5)
        return "late"

    async def scenario(engine):
        with pytest.raises(NoAnswer, match=r"dreaming: the engine did not answer within 0.1 s"):
            await engine.call_within(0.1, "dreaming", slow, late.append)
        await asyncio.sleep(0.8)

    with_engine(scenario)
    assert late == ["late"]


def test_a_result_that_arrives_just_when_its_caller_is_cancelled_is_discarded(docker_image):
    discarded = threading.Event()

    async def scenario(engine):
        loop = asyncio.get_running_loop()
        arrived = threading.Event()
        asking = asyncio.create_task(engine.call_within(5, "asking", arrived.set, lambda _: discarded.set()))
        await asyncio.sleep(0)
        assert arrived.wait(5)
        time.sleep(0.2)  # noqa: ASYNC251 - the answer waits in the loop, which has not come to it yet
        loop.call_soon(asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking

    with_engine(scenario)
    assert discarded.wait(5)


def test_an_image_that_is_there_is_not_pulled(docker_image, client):
    lines = []

    async def scenario(engine):
        return await asyncio.gather(*(ensure_image(engine, docker_image, lines.append) for _ in range(3)))

    assert {found.image_id for found in with_engine(scenario)} == {client.inspect_image(docker_image)["Id"]}
    assert lines == []


def test_an_image_that_cannot_be_had_is_named_with_the_answer(docker_image):
    async def scenario(engine):
        await ensure_image(engine, "127.0.0.1:9/nothing:1")

    with pytest.raises(ImageError, match=r"127\.0\.0\.1:9/nothing:1 cannot be had: .*refused.*check its name"):
        with_engine(scenario)


def test_an_own_image_that_is_missing_is_never_pulled(docker_image):
    async def scenario(engine):
        await ensure_image(engine, "realwork/base:none")

    with pytest.raises(ImageError, match=r"realwork/base:none: run cluster/setup\.sh"):
        with_engine(scenario)


def test_a_yardstick_that_cannot_be_started_leaves_no_container(docker_image, client):
    made = client.create_container(docker_image, ["true"])["Id"]
    image = client.commit(made, conf={"User": "nobody-of-that-name"})["Id"]
    client.remove_container(made)

    async def scenario(engine):
        async with raw_container(engine, image):
            raise AssertionError

    try:
        with pytest.raises(SandboxError, match="starting a container"):
            with_engine(scenario)
        assert not client.containers(all=True, filters={"ancestor": image})
    finally:
        client.remove_image(image, force=True)


def test_an_image_without_a_shell_is_refused(empty_image, docker_image):
    async def scenario(engine):
        await check_shell(engine, docker_image)
        with pytest.raises(ImageError, match="has no /bin/sh"):
            await check_shell(engine, empty_image)

    with_engine(scenario)


def test_a_container_of_an_image_without_a_shell_is_an_image_error(empty_image, client):
    spec = make_spec(image=empty_image)

    async def scenario(sandbox):
        raise AssertionError

    with pytest.raises(ImageError, match="has no /bin/sh"):
        use(open_container, scenario, **spec.model_dump())
    assert not client.containers(all=True, filters={"name": spec.name})


def abandoned(spec):
    """Open a container in a process of its own and kill that with SIGKILL."""
    owner = subprocess.Popen([sys.executable, "-c", ABANDON, spec.model_dump_json()], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout.readline() == b"open\n"
        owner.kill()


def test_garbage_is_what_a_dead_owner_left_and_nothing_else(client):
    dead, alive, foreign = make_spec(), make_spec(), make_spec().name
    client.create_container(dead.image, ["tail", "-f", "/dev/null"], name=foreign, working_dir="/workspace")
    try:
        client.start(foreign)
        abandoned(dead)

        async def main():
            async with open_engine() as engine, open_container(alive, engine=engine) as sandbox:
                report = await collect_garbage(engine)
                return report, (await run(sandbox, "echo fine")).stdout

        report, said = asyncio.run(main())
        assert dead.name not in report.kept  # a reaper may have been faster
        assert alive.name in report.kept
        assert foreign not in report.removed + report.kept
        assert said == b"fine\n"
        assert client.inspect_container(foreign)["State"]["Running"]
        assert not client.containers(all=True, filters={"name": dead.name})
    finally:
        client.remove_container(foreign, force=True)


def test_the_name_of_a_dead_owner_is_taken_over(client):
    spec = make_spec()
    abandoned(spec)

    async def scenario(sandbox):
        return await run(sandbox, "echo mine")

    assert use(open_container, scenario, **spec.model_dump()).stdout == b"mine\n"


def test_garbage_includes_what_is_past_its_deadline(client):
    past = make_spec()
    client.create_container(
        past.image,
        ["true"],
        name=past.name,
        labels=labels.own_labels(3600) | {labels.DEADLINE: str(int(time.time()) - 5)},
    )
    assert past.name not in with_engine(collect_garbage).kept
    assert not client.containers(all=True, filters={"name": past.name})


def test_what_somebody_made_of_a_container_of_ours_is_no_garbage(client):
    name = f"mine-{uuid.uuid4().hex[:8]}"
    theirs = labels.own_labels(0) | {labels.DEADLINE: "1"}
    created = client.create_container(make_spec().image, ["true"], name=name, labels=theirs)
    try:
        report = with_engine(collect_garbage)
        assert name not in (*report.removed, *report.kept)
        assert client.inspect_container(name)["Id"] == created["Id"]
    finally:
        client.remove_container(name, force=True)


@pytest.mark.parametrize(
    ("change", "abandoned"),
    [
        ({}, False),
        ({"started": 1}, True),
        ({"boot_id": "another"}, True),
        ({"pid_namespace": "pid:[1]", "started": 1}, False),
        ({"host": "another", "started": 1}, False),
    ],
)
def test_an_owner_is_dead_only_when_that_is_certain(change, abandoned):
    owner = labels.this_process()._replace(**change)
    assert labels.is_abandoned(labels.own_labels(60) | {labels.OWNER: owner.as_label()}) is abandoned


def test_labels_that_nobody_can_read_are_left_alone():
    assert not labels.is_abandoned({labels.OWNER: "?", labels.DEADLINE: "99999999999"})
    assert not labels.is_abandoned({})


def test_an_engine_that_is_not_there_is_a_sandbox_error(tmp_path):
    async def main():
        async with open_engine(f"unix://{tmp_path}/none.sock"):
            raise AssertionError

    with pytest.raises(SandboxError, match="there is no such socket"):
        asyncio.run(main())
