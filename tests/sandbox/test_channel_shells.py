"""The channel under every shell that an image may have as its `/bin/sh`, and an image too bare for it."""

import time

import pytest

from realwork.errors import FileError
from realwork.sandbox.docker import open_container

from .helpers import WORK, run, shell_of, use


@pytest.fixture(params=["docker_image", "bash", "busybox"])
def image(request):
    return request.getfixturevalue(request.param)


def test_every_shell_keeps_the_contract(image):
    content = bytes(range(256)) * 20

    async def scenario(sandbox):
        shell = await shell_of(sandbox)
        assert shell != 0
        out = await run(sandbox, "printf 'a\\000b'; printf 'e\\000f' >&2; cat; exit 3")
        killed = await run(sandbox, "kill -9 $$")
        held = await run(sandbox, "sleep 0.4 && echo late & echo now")
        mine = await run(sandbox, "sleep 0.8; cd /; export X=1; echo mine")
        cut = await run(sandbox, "trap '' TERM; echo on; while :; do sleep 0.1; done", timeout_s=0.5)
        nowhere = await run(sandbox, "echo never", working_directory=f"{WORK}/nope")
        await sandbox.write_file(f"{WORK}/a 'b/-c\n", content)
        found = await sandbox.read_file(f"{WORK}/a 'b/-c\n")
        answers = [await run(sandbox, "kill -USR1 $PPID; echo ${X-unset}") for _ in range(2)]
        assert await shell_of(sandbox) != 0
        return out, killed, held, mine, cut, nowhere, found, answers

    out, killed, held, mine, cut, nowhere, found, answers = use(open_container, scenario, image=image)
    assert (out.exit_code, out.stdout, out.stderr) == (3, b"a\0b", b"e\0f")
    assert (killed.exit_code, killed.stderr) == (137, b"")
    assert (held.stdout, mine.stdout) == (b"now\n", b"mine\n")
    assert (cut.timed_out, cut.stdout) == (True, b"on\n")
    assert (nowhere.exit_code, nowhere.stdout, b"nope" in nowhere.stderr) == (nowhere.exit_code or 1, b"", True)
    assert found.content == content
    assert [answer.stdout for answer in answers] == [b"unset\n"] * 2


def test_an_image_with_a_bare_shell_runs_commands_as_execs_and_says_what_it_lacks(bare):
    async def scenario(sandbox):
        out = await run(sandbox, "printf 'a\\000b'; printf 'e\\000f' >&2; read x; exit 3")
        held = await run(sandbox, "sleep 300 & echo now")
        much = await run(sandbox, "while :; do echo yyyyyyyyyyyyyyy; done", timeout_s=1, limit_bytes=1000)
        cut = await run(sandbox, "trap '' TERM; (sleep 50 & sleep 50); echo never", timeout_s=0.5)
        found = await run(sandbox, "for entry in /proc/[0-9]*/stat; do read -r _ name _ <$entry; echo $name; done")
        await sandbox.write_file(f"{WORK}/it's", b"\0\xff")
        with pytest.raises(FileError, match=r"stat.*not found"):
            await sandbox.read_file(f"{WORK}/it's")
        with pytest.raises(FileError, match=r"mkdir.*not found"):
            await sandbox.write_file(f"{WORK}/deep/er", b"x")
        await sandbox.stop_processes()
        return out, held, much, cut, found

    began = time.monotonic()
    out, held, much, cut, found = use(open_container, scenario, image=bare)
    assert time.monotonic() - began < 20
    assert (out.exit_code, out.stdout, out.stderr) == (3, b"a\0b", b"e\0f")
    assert held.stdout == b"now\n"
    assert (much.timed_out, much.stdout_bytes > 10_000, b"bytes omitted" in much.stdout) == (True, True, True)
    assert (cut.timed_out, cut.stdout) == (True, b"")
    assert found.stdout.count(b"(sleep)") == 2
