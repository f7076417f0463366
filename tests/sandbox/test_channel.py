"""What the channel of a container withstands, and that its answers are those of an exec."""

import asyncio
import contextlib
import random
import time
from functools import partial

import pytest

from realwork.errors import FileError, SandboxError, SandboxLost
from realwork.sandbox.docker import open_container

from .helpers import WORK, run, shell_of, unique_number, use

pytestmark = pytest.mark.usefixtures("docker_image")

SHELL = "$(ps -eo pid,args | grep -E '^ *[0-9]+ /bin/sh$' | awk '{print $1}')"
"""The process id of the channel's shell, as seen by a command."""
LOOP = "for s in {0}; do {1}; done"


def fresh_and(*commands, timeout_s=6.0, **fields):
    """What the commands answer, then `echo fine` (in time), and whether the container has a working channel then."""

    async def scenario(sandbox):
        await run(sandbox, "true")
        found = [await run(sandbox, command, timeout_s=timeout_s) for command in commands]
        began = time.monotonic()
        after = await run(sandbox, "echo fine; exit 4")
        assert time.monotonic() - began < 9
        assert (after.exit_code, after.stdout, after.stderr) == (4, b"fine\n", b"")
        return found, await shell_of(sandbox) != 0

    return use(open_container, scenario, **fields)


def test_commands_go_through_one_shell():
    async def scenario(sandbox):
        shells = set()
        for number in range(5):
            await run(sandbox, f"exit {number}")
            await sandbox.write_file(f"{WORK}/x", b"x")
            await sandbox.read_file(f"{WORK}/x")
            shells.add(await shell_of(sandbox))
        return shells

    shells = use(open_container, scenario)
    assert len(shells) == 1
    assert shells != {0}


def test_a_command_that_is_to_run_apart_does_not_touch_the_channel():
    async def scenario(sandbox):
        apart = await run(sandbox, "ps -o ppid= -p $$; echo out; exit 3", apart=True)
        return apart, await shell_of(sandbox)

    apart, shell = use(open_container, scenario)
    assert (apart.exit_code, apart.stdout.split()) == (3, [b"0", b"out"])
    assert shell != 0


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_shell_that_is_killed_or_stopped_between_commands_is_replaced(signal):
    attack = f"(sleep 0.5; kill -s {signal} {SHELL}) >/dev/null 2>&1 &"
    (before, waited), works = fresh_and(attack, "echo here", timeout_s=5)
    assert (before.exit_code, waited.stdout, works) == (0, b"here\n", True)


def test_a_command_that_kills_the_shell_ends_with_it():
    (result,), works = fresh_and(f"echo part; kill -9 {SHELL}; sleep 30")
    assert (result.exit_code, result.timed_out, result.stdout, works) == (137, False, b"part\n", True)
    assert result.duration_s < 5


def test_a_command_that_stops_the_shell_ends_at_its_deadline():
    (result,), works = fresh_and(f"echo part; kill -STOP {SHELL}", timeout_s=2)
    assert (result.exit_code, result.timed_out, result.stdout, works) == (None, True, b"part\n", True)
    assert result.duration_s < 9


def test_signals_that_can_be_caught_do_not_reach_the_shell():
    signals = "HUP INT QUIT TERM USR1 USR2 PIPE ALRM"
    (result,), works = fresh_and(f"for n in {signals}; do kill -s $n {SHELL}; done; echo on; exit 5")
    assert (result.exit_code, result.stdout, works) == (5, b"on\n", True)


def test_killing_everything_leaves_a_container_that_answers():
    (result, *_), works = fresh_and("echo part; kill -9 -1; echo rest", "kill -TERM -1", timeout_s=5)
    assert result.stdout.startswith(b"part\n")
    assert result.exit_code in (0, 137)
    assert works


def test_a_daemon_that_kills_every_shell_leaves_commands_to_execs():
    daemon = f"setsid sh -c 'while :; do for s in {SHELL}; do kill -9 $s; done; sleep 0.02; done' >/dev/null 2>&1 &"
    daemon = daemon.replace("awk '{print $1}'", 'awk "{print \\$1}"').replace(
        "'^ *[0-9]+ /bin/sh$'", '"^ *[0-9]+ /bin/sh$"'
    )

    async def scenario(sandbox):
        await run(sandbox, daemon)
        found = []
        for number in range(8):
            result = await run(sandbox, f"sleep 0.2; echo {number}; exit 7")
            found.append((result.exit_code, result.stdout))
        return found

    found = use(open_container, scenario)
    assert {code for code, _ in found} <= {7, 137}
    assert all(out in (b"", f"{number}\n".encode()) for number, (_, out) in enumerate(found))
    assert found[-1] == (7, b"7\n")


@pytest.mark.parametrize("descriptor", [0, 1, 3])
def test_garbage_in_the_shells_streams_is_not_an_answer(descriptor):
    garbage = "head -c 300000 /dev/urandom" if descriptor else "printf '\\nexit 3\\n)(\\nrun a b c own / \"'"
    noise = LOOP.format(SHELL, f"{garbage} >/proc/$s/fd/{descriptor}")
    (_, result, *_), _ = fresh_and(f"(sleep 0.3; {noise}) >/dev/null 2>&1 &", "sleep 0.6; exit 6", "true")
    assert result.exit_code in ((6,) if descriptor else (6, 137))


def test_what_a_command_writes_past_its_end_is_not_seen_by_the_next():
    started = "(for i in 1 2 3 4 5 6; do echo late; echo late >&2; sleep 0.1; done) & echo now"

    async def scenario(sandbox):
        first = await run(sandbox, started)
        others = [await run(sandbox, "sleep 0.2; echo mine") for _ in range(3)]
        return first, others

    first, others = use(open_container, scenario)
    assert first.stdout.startswith((b"now\n", b"late\nnow\n"))
    assert {(other.stdout, other.stderr) for other in others} == {(b"mine\n", b"")}


def test_a_holder_that_cannot_be_looked_into_is_seen_all_the_same():
    late = 'import os, time; os.setuid(1000); time.sleep(0.7); print("late", flush=True); time.sleep(60)'
    other = f"setsid python3 -c '{late}'"

    async def scenario(sandbox):
        await run(sandbox, f"{other} & sleep 0.3")
        first = await run(sandbox, "sleep 1; echo mine")
        return first, [await shell_of(sandbox) for _ in range(2)]

    first, pids = use(open_container, scenario)
    assert first.stdout == b"mine\n"
    assert pids[0] == pids[1]


@pytest.mark.parametrize(
    "damage",
    [
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=100",
        "rm -f /dev/null; mkfifo /dev/null",
        "rm -f /dev/null; echo x > /dev/null",
        'for fd in 0 1 2 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done; exit 1',
        "ulimit -n 3; ulimit -f 0; ulimit -c 0; exit 1",
        "mkdir -p /tmp/x; chmod 0 /tmp; rm -rf /tmp; exit 1",
        "trap '' CHLD TERM; umask 777; exit 1",
    ],
)
def test_damage_to_its_surroundings_does_not_reach_the_shell(damage):
    _, works = fresh_and(damage)
    assert works


def test_a_replaced_shell_is_what_commands_get_and_nothing_hangs():
    async def scenario(sandbox):
        fake = b"#!/bin/bash\necho fake\nexit 9\n"
        await run(sandbox, "true")
        await sandbox.write_file("/usr/bin/fake", fake)
        await run(sandbox, "chmod 755 /usr/bin/fake; mv /usr/bin/fake /usr/bin/sh; exit 0")
        return await run(sandbox, "echo never"), await sandbox.read_file("/usr/bin/sh"), fake

    result, content, fake = use(open_container, scenario)
    assert (result.exit_code, result.stdout) == (9, b"fake\n")
    assert content.content == fake


THIEF = """
import os, sys
shell, forge = sys.argv[1], len(sys.argv) > 2
requests = open(f"/proc/{shell}/fd/0", "rb", buffering=0)
answers = [os.open(f"/proc/{shell}/fd/{number}", os.O_WRONLY) for number in (1, 3)]
os.fork() and os._exit(0)
while True:
    words = requests.read(65536).split()
    if forge and words[:1] == [b"run"]:
        os.write(answers[1], words[1] + b" 0\\n" + words[2] + b" 0\\n")
        os.write(answers[0], words[1] + b" 99\\nforged\\n" + words[2] + b" 0\\n" + words[3] + b" 0\\n")
"""


@pytest.mark.parametrize("forge", ["", "forge"])
def test_who_takes_the_requests_of_the_shell_forges_answers_to_commands_and_never_those_of_tests(forge):
    async def scenario(sandbox):
        shell = await shell_of(sandbox)
        await sandbox.write_file("/tmp/thief.py", THIEF.encode())
        await run(sandbox, f"setsid python3 /tmp/thief.py {shell} {forge} >/dev/null 2>&1; sleep 0.3")
        began = time.monotonic()
        inside = [await run(sandbox, f"echo true; exit {number}") for number in range(3, 8)]
        took = time.monotonic() - began
        return inside, took, await run(sandbox, "echo true; exit 5", apart=True)

    inside, took, apart = use(open_container, scenario)
    assert (apart.exit_code, apart.stdout) == (5, b"true\n")
    found = [(result.exit_code, result.stdout) for result in inside]
    truth = [(number, b"true\n") for number in range(3, 8)]
    assert all(
        one in (true, (0, b"forged\n")) if forge else one == true for one, true in zip(found, truth, strict=True)
    )
    assert took < 25


@pytest.mark.parametrize(
    ("tool", "fake"),
    [
        ("setsid", "sleep 99"),
        ("setsid", 'exec "$@"'),
        ("nice", "exit 3"),
        ("stat", "sleep 99"),
        ("head", "dd if=/dev/urandom bs=100000 count=1; exit 3"),
        ("mkdir", "exit 0"),
    ],
)
def test_a_replaced_tool_is_bounded_and_typed(tool, fake):
    async def scenario(sandbox):
        await sandbox.write_file("/tmp/x", f"#!/bin/bash\n{fake}\n".encode())
        await run(sandbox, f"chmod 755 /tmp/x; mv /tmp/x $(which {tool})")
        began = time.monotonic()
        with contextlib.suppress(FileError):
            content = await sandbox.read_file("/etc/passwd", limit_bytes=5000)
            assert len(content.content) <= 5000
        with contextlib.suppress(FileError):
            await sandbox.write_file(f"{WORK}/new/folder/x", b"x")
        cut = await run(sandbox, "sleep 77", timeout_s=1)
        left = await run(sandbox, "ps -eo args | grep -c '^slee[p] [79]'", apart=tool != "nice")
        return time.monotonic() - began, cut, left

    took, cut, left = use(open_container, scenario)
    assert took < 30
    assert cut.timed_out or tool == "nice"
    assert left.stdout == b"0\n" or tool == "nice"


@pytest.mark.parametrize("way", ["channel", "exec"])
def test_a_false_shell_that_ends_nothing_loses_the_container_and_little_time(way):
    async def scenario(sandbox):
        await run(sandbox, "true")
        await sandbox.write_file("/usr/bin/fake", b'#!/bin/bash\ncase $2 in leader=*) exit 0; esac; exec bash "$@"\n')
        await run(sandbox, "chmod 755 /usr/bin/fake; mv /usr/bin/fake /usr/bin/sh")
        began = time.monotonic()
        with pytest.raises(SandboxLost):
            await run(sandbox, "sleep 60", timeout_s=1)
        return time.monotonic() - began

    assert use(partial(open_container, with_channel=way == "channel"), scenario) < 20


@pytest.mark.parametrize("way", ["channel", "exec"])
def test_what_a_replaced_shell_says_is_an_answer_to_the_agent_and_none_to_a_test(way):
    async def scenario(sandbox):
        await sandbox.write_file("/usr/bin/fake", b"#!/bin/bash\necho fake\nexit 0\n")
        await run(sandbox, "chmod 755 /usr/bin/fake; mv /usr/bin/fake /usr/bin/sh")
        answer = await run(sandbox, "exit 9")
        with pytest.raises(SandboxError):
            await run(sandbox, "exit 9", apart=True)
        return answer

    answer = use(partial(open_container, with_channel=way == "channel"), scenario)
    assert (answer.exit_code, b"fake\n" in (answer.stdout, answer.stderr)) == (0, True)


def test_a_fork_bomb_under_the_channel_leaves_an_answering_container():
    async def scenario(sandbox):
        await run(sandbox, "bash -c 'bomb() { bomb | bomb & }; bomb' & sleep 1", timeout_s=3)
        began = time.monotonic()
        under = await run(sandbox, "exit 3", timeout_s=3)
        took = time.monotonic() - began
        await sandbox.stop_processes()
        return under, took, await run(sandbox, "echo fine")

    under, took, after = use(open_container, scenario)
    assert under.exit_code in (3, 2, 126, 137, None)
    assert took < 18
    assert after.stdout == b"fine\n"


def test_a_timeout_ends_its_own_command_and_is_no_damage_to_the_channel():
    mark = unique_number()

    async def scenario(sandbox):
        await run(sandbox, f"sleep {mark} >/dev/null 2>&1 &")
        for _ in range(4):
            cut = await run(sandbox, f"(sleep 5.{mark}; true); sleep 6.{mark}", timeout_s=0.5)
        left = await run(
            sandbox, f"ps -eo args | grep -c '^sleep {mark}$'; ps -eo args | grep -c '^sleep [56][.]{mark}'"
        )
        return cut, left, await shell_of(sandbox)

    cut, left, shell = use(open_container, scenario)
    assert (cut.timed_out, left.stdout) == (True, b"1\n0\n")
    assert shell != 0


def test_random_commands_answer_as_execs_of_their_own_do():
    chance = random.Random(4)

    def command():
        octal = "".join(f"\\{byte:03o}" for byte in chance.randbytes(chance.randrange(40)))
        other = "".join(f"\\{byte:03o}" for byte in chance.randbytes(chance.randrange(40)))
        quoted = "".join(chance.choices("ab '\"$\\`\n\t!%é*;&|<>()#~\x01", k=12)).replace("'", "'\\''")
        size = chance.choice([0, 1, 31, 32, 4096, 70_000])
        end = chance.choice(
            [f"exit {chance.randrange(256)}", "kill -9 $$", "kill -TERM $$", "false", "cd /nope", "(", ""]
        )
        return f"printf '{octal}'; printf '{other}' >&2; printf %s '{quoted}'; head -c {size} /dev/zero; {end}"

    async def scenario(sandbox):
        async def pair(text):
            results = await run(sandbox, text, limit_bytes=5000), await run(sandbox, text, limit_bytes=5000, apart=True)
            return [(r.exit_code, r.stdout, r.stderr, r.stdout_bytes, r.stderr_bytes, r.timed_out) for r in results]

        return [(text, await pair(text)) for text in (command() for _ in range(80))]

    for text, (through, apart) in use(open_container, scenario):
        assert through == apart, text


def test_a_cancelled_command_leaves_a_channel_that_can_be_used():
    async def scenario(sandbox):
        await run(sandbox, "true")
        for _ in range(4):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await run(sandbox, "sleep 20")
        return await run(sandbox, "echo fine; ps -eo args | grep -c '^sleep 20'"), await shell_of(sandbox)

    result, shell = use(open_container, scenario)
    assert result.stdout == b"fine\n0\n"
    assert shell != 0
