"""The shell that a container starts with: when it is the channel, and when an exec has to be."""

import asyncio
import os
import signal
import subprocess
import time

import pytest

from realwork.errors import SandboxLost
from realwork.sandbox import cgroups, first_shell
from realwork.sandbox.docker import open_container

from .helpers import make_spec, run, shell_of, use
from .slow import slow_engine

pytestmark = pytest.mark.usefixtures("docker_image")


def with_counted_execs(scenario, **fields):
    """What `scenario` returns of an open sandbox, and how many execs the engine has made for it."""

    async def play():
        async with slow_engine() as (engine, client), open_container(make_spec(**fields), engine=engine) as sandbox:
            made, create = [], client.exec_create
            client.exec_create = lambda *arguments, **options: made.append(arguments) or create(*arguments, **options)
            return await scenario(sandbox), len(made)

    return asyncio.run(play())


async def three_commands(sandbox):
    return [(await run(sandbox, f"echo {number}; exit {number}")).exit_code for number in range(3)]


def test_commands_need_no_exec():
    assert with_counted_execs(three_commands) == ([0, 1, 2], 0)


def test_an_image_whose_env_cannot_undo_ignored_signals_has_its_channel_by_exec(busybox):
    assert with_counted_execs(three_commands, image=busybox) == ([0, 1, 2], 1)


def test_an_image_without_what_a_channel_needs_has_execs(bare):
    codes, _ = with_counted_execs(three_commands, image=bare)
    assert codes == [0, 1, 2]


def test_where_this_machine_does_not_see_its_process_the_channel_is_an_exec(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path)
    assert with_counted_execs(three_commands) == ([0, 1, 2], 1)


def test_a_container_is_not_spoken_with_before_its_first_process_is_guarded(monkeypatch):
    looks = []

    def command_of(pid):
        looks.append(pid)
        return b"sleep" if len(looks) > 3 else b"/bin/sh"

    monkeypatch.setattr(first_shell, "command_of", command_of)
    assert with_counted_execs(three_commands) == ([0, 1, 2], 0)
    assert len(looks) == 4


def test_where_the_engine_lets_nobody_speak_with_a_container_the_channel_is_an_exec():
    async def play():
        async with slow_engine() as (engine, client):
            client.refuses_to_attach = True
            for _ in range(2):
                async with open_container(make_spec(), engine=engine) as sandbox:
                    assert await three_commands(sandbox) == [0, 1, 2]
            return client.attached

    assert asyncio.run(play()) == 1


def test_interrupts_reach_commands():
    """A shell lets what it starts beside itself ignore INT and QUIT, which lasts."""

    async def scenario(sandbox):
        return [(await run(sandbox, f"sh -c 'kill -s {name} $$; echo no'")) for name in ("INT", "QUIT")]

    for result in use(open_container, scenario):
        assert (result.exit_code > 128, result.stdout) == (True, b"")


def test_commands_find_what_they_find_in_an_exec():
    look = (
        "env | grep -v ^_= | sort; umask; ulimit -a; id; readlink /proc/self/fd/0; nice; ls /proc/self/fd | wc -l"
        "; grep -E '^(Cap|NoNew|Sec|SigIgn|oom)' /proc/self/status; cat /proc/self/oom_score_adj"
    )

    async def scenario(sandbox):
        return (await run(sandbox, look)).stdout.decode().splitlines()

    def found(with_channel):
        def opener(spec):
            return open_container(spec, with_channel=with_channel)

        lines = use(opener, scenario, environment_variables={"A": "b c"})
        return [line for line in lines if "docker" not in line and not line.startswith(("HOSTNAME", "OLDPWD"))]

    assert found(True) == found(False)


def test_a_command_after_the_shell_was_killed_runs_once():
    async def scenario(sandbox):
        shell = await shell_of(sandbox)
        await run(sandbox, f"kill -9 {shell}", apart=True)
        await asyncio.sleep(0.2)
        said = [(await run(sandbox, "echo x >>log; cat log")).stdout for _ in range(2)]
        return said, shell, await shell_of(sandbox)

    said, before, after = use(open_container, scenario)
    assert said == [b"x\n", b"x\nx\n"]
    assert 0 not in (before, after)
    assert before != after


def test_a_command_that_a_killed_shell_has_not_begun_runs_once():
    """Its streams do not end with it: what was not told by then has not begun, and runs by exec."""

    async def scenario(sandbox):
        shell = await shell_of(sandbox)
        await run(sandbox, f"kill -STOP {shell}", apart=True)
        said = await run(sandbox, "echo x >>log; cat log")
        return said.stdout, (await run(sandbox, "pgrep -x sh; cat log")).stdout, shell

    said, later, shell = use(open_container, scenario)
    assert said == b"x\n"
    assert later.endswith(b"x\n")
    assert str(shell).encode() not in later.split()


def test_the_end_of_the_container_is_told():
    async def scenario(sandbox):
        await run(sandbox, "true")
        ending = asyncio.create_task(asyncio.sleep(0.5))
        ending.add_done_callback(lambda _: sandbox._engine.client.kill(sandbox._container_id))
        with pytest.raises(SandboxLost):
            await run(sandbox, "sleep 30", timeout_s=20)

    use(open_container, scenario)


@pytest.mark.parametrize(
    ("script", "is_busy"), [("while :; do :; done", True), ("exec sleep 60", False), ("exit 0", False)]
)
def test_only_a_process_that_would_go_on_if_it_were_let_is_busy(script, is_busy):
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as process:
        watched = cgroups.Watched(process.pid, os.pidfd_open(process.pid), lambda: [process.pid])
        time.sleep(0.3)
        try:
            assert asyncio.run(watched.is_busy()) == is_busy
            assert asyncio.run(watched.is_running()) == (script != "exit 0")
        finally:
            watched.close()
            process.kill()


def test_a_process_is_busy_as_long_as_one_of_its_session_is():
    with subprocess.Popen(
        ["/bin/sh", "-c", "(while :; do :; done) & echo $!; wait"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        spinning = int(process.stdout.readline())
        try:
            peers = [process.pid, spinning]
            watched = cgroups.Watched(process.pid, os.pidfd_open(process.pid), lambda: peers)
            assert asyncio.run(watched.is_busy())
            os.kill(spinning, signal.SIGSTOP)
            time.sleep(0.1)
            assert not asyncio.run(watched.is_busy())
            watched.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
