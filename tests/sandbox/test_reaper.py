"""The reaper: removes soon what dead owners left, and nothing else; one at a time; gone when nobody needs it."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from realwork.sandbox import labels
from realwork.sandbox.abilities import abilities
from realwork.sandbox.attended import PACKAGE_PARENT, attended, reaper_name
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import open_engine
from realwork.sandbox.reaper import command

from .helpers import make_spec, run
from .owners import END_S, GONE_S, owner, reapers, wait_until

LEAVING = """
import asyncio, sys
from realwork.sandbox.base import SandboxSpec
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import open_engine

async def main():
    async with open_engine(sys.argv[2]) as engine:
        async with open_container(SandboxSpec.model_validate_json(sys.argv[1]), engine=engine):
            print("open", flush=True)
            await asyncio.to_thread(input)
        print("left", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
"""Owns a container, which it leaves when it is told to, and lives on."""


@pytest.fixture
def engine(private_engine):
    """The private engine, empty in the end."""
    yield private_engine
    private_engine.thaw()
    assert private_engine.containers() == []


def test_what_a_killed_owner_leaves_is_gone_soon_and_what_others_own_stays(engine):
    dead, alive, foreign = make_spec(), make_spec(), make_spec().name
    with engine.client() as client:
        client.create_container(dead.image, ["tail", "-f", "/dev/null"], name=foreign, working_dir="/workspace",
                                host_config=client.create_host_config(network_mode="none"))  # fmt: skip
        client.start(foreign)
        with owner(engine, dead) as killed, owner(engine, alive):
            assert engine.containers() == sorted([dead.name, alive.name, foreign])
            killed.kill()
            began = time.monotonic()
            wait_until(lambda: dead.name not in engine.containers(), GONE_S, "the end of the container")
            assert time.monotonic() - began < 5
            time.sleep(4)
            assert engine.containers() == sorted([alive.name, foreign])
        wait_until(lambda: engine.containers() == [foreign], GONE_S, "the end of the other container")
        client.remove_container(foreign, force=True)


def test_a_container_whose_first_process_is_frozen_is_gone_soon_after_its_deadline(engine):
    spec = make_spec(deadline_s=4.0)
    with owner(engine, spec), engine.client() as client:
        client.pause(spec.name)
        began = time.monotonic()
        wait_until(lambda: engine.containers() == [], 4 + GONE_S, "the end of the container")
        assert time.monotonic() - began > 4


def test_there_is_one_reaper_however_many_processes_ask_and_it_is_nobodys_child(engine):
    async def main():
        async with (
            open_engine(engine.url) as first,
            open_engine(engine.url) as second,
            attended(first),
            attended(second),
            attended(first),
        ):
            await asyncio.sleep(3)
            return reapers(engine)

    (pid,) = asyncio.run(main())
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["PPid"] == "1"
    assert os.getsid(pid) != os.getsid(0)
    assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    assert all(
        target in ("/dev/null", "anon_inode:[eventpoll]") or target.startswith("socket:")
        for target in (str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    )
    assert int(status["VmRSS"].split()[0]) < 40 << 10


def test_a_reaper_that_is_killed_is_replaced_while_somebody_needs_one(engine):
    spec = make_spec()
    with owner(engine, spec) as killed:
        (first,) = reapers(engine)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: reapers(engine) not in ([], [first]), 10, "another reaper")
        killed.kill()
        wait_until(lambda: engine.containers() == [], GONE_S, "the end of the container")


def test_a_reaper_outlives_the_loss_of_its_engine(engine):
    spec = make_spec()
    with owner(engine, spec) as killed:
        (before,) = reapers(engine)
        engine.kill()
        killed.kill()
        time.sleep(4)
        engine.start()
        wait_until(lambda: engine.containers() == [], GONE_S, "the end of the container")
        assert reapers(engine) in ([before], [])


def test_a_container_that_could_not_be_removed_goes_later_while_its_owner_lives(engine):
    spec = make_spec()
    argv = [sys.executable, "-c", LEAVING, spec.model_dump_json(), engine.url]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        try:
            assert living.stdout.readline() == b"open\n"
            engine.kill()
            living.stdin.write(b"\n")
            living.stdin.flush()
            assert living.stdout.readline() == b"left\n"
            engine.start()
            wait_until(lambda: engine.containers() == [], 45, "the end of the container")
            assert living.poll() is None
        finally:
            living.kill()


def test_an_engine_that_stands_still_delays_the_reaper_and_nothing_more(engine):
    spec = make_spec()
    with owner(engine, spec) as killed:
        engine.freeze()
        killed.kill()
        time.sleep(6)
        engine.thaw()
        wait_until(lambda: engine.containers() == [], GONE_S, "the end of the container")


def test_snapshots_go_with_their_driver_and_not_with_the_process_that_took_them(engine):
    async def snapshot(driver):
        spec = make_spec(labels={labels.DRIVER: driver, labels.RUN: "r"})
        async with open_engine(engine.url) as opened, open_container(spec, engine=opened) as sandbox:
            await run(sandbox, "echo x > file")
            return (await sandbox.snapshot()).id

    def images():
        with engine.client() as client:
            return {image["Id"] for image in client.images(filters={"label": "realwork.snapshot"})}

    driver = subprocess.Popen(["sleep", "100"])
    stat = Path(f"/proc/{driver.pid}/stat").read_text()
    living = labels.this_process()._replace(pid=driver.pid, started=int(stat.rpartition(")")[2].split()[19]))
    taken = asyncio.run(snapshot(living.as_label()))
    with owner(engine, make_spec()):
        time.sleep(4)
        assert images() == {taken}
    driver.kill()
    driver.wait()
    wait_until(lambda: images() == set(), GONE_S, "the end of the snapshot")


def test_a_reaper_that_has_no_files_left_for_clients_still_removes_what_dead_owners_left(engine):
    async def name_of():
        async with open_engine(engine.url) as opened:
            return reaper_name((await abilities(opened, None)).engine_id, engine.url)

    wait_until(lambda: not reapers(engine), END_S, "the end of earlier reapers")
    name = asyncio.run(name_of())
    argv = ["prlimit", "--nofile=40", *command(sys.executable, PACKAGE_PARENT, engine.url, name)]
    subprocess.run(argv, check=True, start_new_session=True)
    (pid,) = reapers(engine)
    with ExitStack() as stack, owner(engine, make_spec()) as killed:
        for _ in range(200):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(f"\0{name}")
        time.sleep(1)
        assert reapers(engine) == [pid]
        killed.kill()
        wait_until(lambda: engine.containers() == [], GONE_S, "the end of the container")
    with owner(engine, make_spec()):
        assert reapers(engine) == [pid]
    wait_until(lambda: engine.containers() == [], GONE_S, "the end of the other container")


@pytest.mark.parametrize("spoken", [b"", b"x" * 4096])
def test_who_takes_the_place_of_a_reaper_is_neither_read_without_end_nor_asked_without_pause(engine, spoken):
    asked = []

    def serve(listener):
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                asked.append(client)
                with suppress(OSError):
                    while spoken and len(asked) < 50:
                        client.sendall(spoken)
                client.close()

    async def main(opened):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with attended(opened):
            await asyncio.sleep(4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    async def scenario():
        async with open_engine(engine.url) as opened:
            name = reaper_name((await abilities(opened, None)).engine_id, engine.url)
            with socket.socket(socket.AF_UNIX) as listener:
                wait_until(lambda: not reapers(engine), END_S, "the end of earlier reapers")
                listener.bind(f"\0{name}")
                listener.listen()
                serving = threading.Thread(target=serve, args=(listener,))
                serving.start()
                grown_kib = await main(opened)
                listener.shutdown(socket.SHUT_RDWR)
                await asyncio.to_thread(serving.join, 5)
        return grown_kib

    assert asyncio.run(scenario()) < 20 << 10
    assert 1 <= len(asked) < 12


def test_it_loads_nothing_but_the_standard_library_and_starts_at_once():
    argv = list(command(sys.executable, PACKAGE_PARENT, "unix:///nowhere", "x"))
    argv[argv.index("-c") + 1] = (
        "import sys; sys.path.insert(0, sys.argv[1]); import realwork.sandbox.reaper, json, resource; "
        "print(json.dumps([sorted(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_utime]))"
    )
    said = subprocess.run(argv, check=True, capture_output=True, env={}, cwd="/").stdout
    modules, cpu_s = json.loads(said)
    strangers = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"__main__"}
    assert strangers == {"realwork"}
    assert cpu_s < 1


def test_gc_removes_what_no_reaper_has(private_engine):
    spec = make_spec()
    with owner(private_engine, spec) as killed:
        os.kill(reapers(private_engine)[0], signal.SIGSTOP)
        killed.kill()
        killed.wait()
        environment = os.environ | {"DOCKER_HOST": private_engine.url}
        argv = [Path(sys.executable).with_name("realwork"), "gc"]
        said = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stdout
        os.kill(reapers(private_engine)[0], signal.SIGCONT)
    assert f"removed {spec.name}" in said


def test_a_reaper_that_nobody_needs_ends_by_itself(engine):
    with owner(engine, make_spec()):
        pass
    wait_until(lambda: engine.containers() == [], GONE_S, "the end of the container")
    assert reapers(engine)
    wait_until(lambda: not reapers(engine), END_S, "the end of the reaper")
