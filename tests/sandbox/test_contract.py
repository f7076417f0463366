"""What every sandbox does, whatever it is made of."""

import asyncio
import time

import pytest

from realwork.errors import FileError
from realwork.sandbox.docker import open_container
from realwork.sandbox.files import pack_folder
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import MemorySandbox, open_memory

from .helpers import WORK, run, unique_number, use


@pytest.fixture(params=["docker", "local"])
def opener(request):
    if request.param == "local":
        return open_local
    request.getfixturevalue("docker_image")
    return open_container


@pytest.fixture(params=["docker", "local", "memory"])
def file_opener(request):
    if request.param == "memory":
        return lambda spec: open_memory()
    if request.param == "local":
        return open_local
    request.getfixturevalue("docker_image")
    return open_container


def results(opener, *commands, **options):
    async def scenario(sandbox):
        return [await run(sandbox, command, **options) for command in commands]

    return use(opener, scenario)


def test_a_command_gives_its_exit_code_and_both_streams_apart(opener):
    (result,) = results(opener, "echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert (result.stdout_bytes, result.stderr_bytes, result.timed_out, result.oom) == (4, 4, False, False)


def test_every_exit_code_comes_back_as_the_shell_gives_it(opener):
    codes = [0, 1, 2, 126, 127, 128, 137, 255]
    assert [result.exit_code for result in results(opener, *(f"exit {code}" for code in codes))] == codes


def test_the_end_by_a_signal_is_128_and_its_number(opener):
    assert [result.exit_code for result in results(opener, "kill -TERM $$", "kill -9 $$")] == [143, 137]


def test_a_command_that_does_not_exist_is_127(opener):
    (result,) = results(opener, "no-such-command")
    assert result.exit_code == 127
    assert b"not found" in result.stderr


def test_a_command_of_many_lines_and_quotes_arrives_as_it_is(opener):
    (result,) = results(opener, """cat <<'END'\nit's "$HOME" `x` \\n\nEND\necho '--' "a\tb" é""")
    assert result.stdout.decode() == """it's "$HOME" `x` \\n\n-- a\tb é\n"""


@pytest.mark.parametrize("characters", [100_000, 300_000])
def test_a_very_long_command_runs_whole(opener, characters):
    (result,) = results(opener, f"printf %s '{'y' * characters}' | wc -c")
    assert (result.exit_code, result.stdout.strip()) == (0, str(characters).encode())


def test_output_of_any_bytes_comes_back_unharmed(opener):
    (result,) = results(opener, r"printf '\000\377\303\050\r\n\033[31m\355\240\275'")
    assert result.stdout == b"\x00\xff\xc3\x28\r\n\x1b[31m\xed\xa0\xbd"


def test_output_that_begins_with_a_number_is_output(opener):
    (result,) = results(opener, "echo 12345; echo 6")
    assert result.stdout == b"12345\n6\n"


def test_output_beyond_the_limit_is_left_out_in_the_middle(opener):
    (result,) = results(opener, "echo start; head -c 5000000 /dev/zero | tr '\\0' x; echo end", limit_bytes=1000)
    assert result.stdout.startswith(b"start\nxxx")
    assert result.stdout.endswith(b"xxxend\n")
    assert b"\n[... 4999010 bytes omitted ...]\n" in result.stdout
    assert (result.stdout_bytes, result.exit_code) == (5_000_010, 0)


def test_standard_input_is_at_its_end(opener):
    (result,) = results(opener, "cat; echo $?; python3 -c 'input()'", timeout_s=10)
    assert result.stdout == b"0\n"
    assert b"EOFError" in result.stderr


def test_nothing_of_one_command_is_seen_by_the_next(opener):
    _, result = results(opener, "cd /; export X=1", 'echo "${X-unset}"; pwd')
    assert result.stdout.startswith(b"unset\n")
    assert not result.stdout.endswith(b"unset\n/\n")


def test_a_missing_working_directory_is_an_exit_code_and_a_message(opener):
    (result,) = results(opener, "echo never", working_directory=f"{WORK}/nope")
    assert result.exit_code in (126, 127)
    assert b"nope" in result.stderr
    assert result.stdout == b""


def test_a_command_starts_in_its_working_directory(opener):
    _, result = results(opener, "mkdir -p sub", "pwd", working_directory=WORK)
    assert result.exit_code == 0

    async def scenario(sandbox):
        await run(sandbox, "mkdir -p 'a b'")
        return await run(sandbox, 'basename "$PWD"', working_directory=f"{WORK}/a b")

    assert use(opener, scenario).stdout == b"a b\n"


def test_a_command_ends_with_its_exit_although_a_child_holds_its_output(opener):
    began = time.monotonic()

    async def scenario(sandbox):
        result = await run(sandbox, "sleep 300 & echo started")
        return result, time.monotonic() - began

    result, took = use(opener, scenario)
    assert (result.exit_code, result.stdout) == (0, b"started\n")
    assert result.duration_s < 2
    assert took < 5


def test_a_command_ends_with_its_exit_although_it_closed_its_output(opener):
    (result,) = results(opener, "exec >&- 2>&-; sleep 1; exit 3")
    assert result.exit_code == 3


def test_the_deadline_gives_the_partial_output_and_ends_the_command(opener):
    async def scenario(sandbox):
        result = await run(sandbox, f"echo $$; (sleep 1{mark} & sleep 2{mark}); echo never", timeout_s=1)
        left = await run(sandbox, f"ps -eo args | grep -c '^sleep [12]{mark}'")
        return result, left

    mark = unique_number()
    result, left = use(opener, scenario)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert result.stdout.strip().isdigit()
    assert b"never" not in result.stdout
    assert left.stdout == b"0\n"


def test_a_command_that_ignores_signals_is_ended_all_the_same(opener):
    (result,) = results(opener, "trap '' TERM INT HUP; echo on; while :; do sleep 0.2; done", timeout_s=1)
    assert (result.exit_code, result.stdout) == (None, b"on\n")
    assert result.duration_s < 6


def test_endless_output_is_cut_at_the_deadline(opener):
    mark = unique_number()
    result, after = results(opener, f"yes {mark}", f"ps -eo args | grep -c '^yes {mark}$'", timeout_s=1)
    assert (result.timed_out, after.stdout) == (True, b"0\n")
    assert result.stdout_bytes > len(result.stdout) > 65_000


def test_a_cancelled_command_is_ended_inside(opener):
    async def scenario(sandbox):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await run(sandbox, f"sleep {mark}", timeout_s=60)
        return await run(sandbox, f"ps -eo args | grep -c '^sleep {mark}'")

    mark = unique_number()
    assert use(opener, scenario).stdout == b"0\n"


def test_stopping_the_processes_reaches_daemons_too(opener):
    async def scenario(sandbox):
        await run(sandbox, f"setsid nohup sleep {mark} >/dev/null 2>&1 & sleep 0.2")
        before = await run(sandbox, f"ps -eo args | grep -c '^sleep {mark}'")
        await sandbox.stop_processes()
        return before, await run(sandbox, f"ps -eo args | grep -c '^sleep {mark}'")

    mark = unique_number()
    before, after = use(opener, scenario)
    assert (before.stdout, after.stdout) == (b"1\n", b"0\n")


def test_commands_have_the_variables_of_the_spec_and_no_secret_of_this_process(opener, monkeypatch):
    monkeypatch.setenv("CANARY", "sk-canary")

    async def scenario(sandbox):
        return await run(sandbox, 'env; echo "[$GIVEN]"')

    result = use(opener, scenario, environment_variables={"GIVEN": "a b=c"})
    assert result.stdout.endswith(b"[a b=c]\n")
    assert b"canary" not in result.stdout.lower()


@pytest.mark.parametrize("name", ["plain", "a b", "it's", "new\nline", '"', "-rf", "deep/er/file", "é", "$(touch x)"])
def test_a_file_is_read_as_it_was_written(file_opener, name):
    content = bytes(range(256)) * 3

    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/{name}", b"old and longer" * 100)
        await sandbox.write_file(f"{WORK}/{name}", content)
        return await sandbox.read_file(f"{WORK}/{name}")

    found = use(file_opener, scenario)
    assert (found.content, found.size_bytes) == (content, len(content))


def test_an_empty_and_a_large_file_come_back_whole(file_opener):
    large = b"\0\xff\r\n" * (1 << 20)

    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/empty", b"")
        await sandbox.write_file(f"{WORK}/large", large)
        first = await sandbox.read_file(f"{WORK}/empty")
        return first, await sandbox.read_file(f"{WORK}/large", limit_bytes=len(large))

    empty, found = use(file_opener, scenario)
    assert (empty.content, empty.size_bytes) == (b"", 0)
    assert found.content == large


def test_only_the_first_bytes_of_a_file_are_read_and_its_size_is_told(file_opener):
    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/x", b"abc" * 1000)
        return await sandbox.read_file(f"{WORK}/x", limit_bytes=5)

    found = use(file_opener, scenario)
    assert (found.content, found.size_bytes) == (b"abcab", 3000)


@pytest.mark.parametrize("path", [f"{WORK}/nope", f"{WORK}/d", f"{WORK}/d/f/x", f"{WORK}/a\0b", f"{WORK}/{'x' * 5000}"])
def test_a_path_that_cannot_be_read_is_a_file_error(file_opener, path):
    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/d/f", b"x")
        with pytest.raises(FileError):
            await sandbox.read_file(path)

    use(file_opener, scenario)


@pytest.mark.parametrize("path", [f"{WORK}/d", f"{WORK}/d/f/x", f"{WORK}/a\0b"])
def test_a_path_that_cannot_be_written_is_a_file_error(file_opener, path):
    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/d/f", b"x")
        with pytest.raises(FileError):
            await sandbox.write_file(path, b"y")
        return (await sandbox.read_file(f"{WORK}/d/f")).content

    assert use(file_opener, scenario) == b"x"


@pytest.mark.parametrize("make", ["mkfifo x", "ln -s /dev/zero x", "mkdir x", "ln -s nowhere x", "ln -s x x"])
def test_what_is_not_a_regular_file_is_a_file_error_and_no_hang(opener, make):
    async def scenario(sandbox):
        await run(sandbox, make)
        began = time.monotonic()
        with pytest.raises(FileError):
            await sandbox.read_file(f"{WORK}/x")
        return time.monotonic() - began

    assert use(opener, scenario) < 3


def test_a_huge_sparse_file_is_read_at_its_start_only(opener):
    async def scenario(sandbox):
        await run(sandbox, "truncate -s 1T x || truncate -s 100G x")
        return await sandbox.read_file(f"{WORK}/x", limit_bytes=10)

    found = use(opener, scenario)
    assert found.content == bytes(10)
    assert found.size_bytes >= 100 << 30


def test_writing_through_a_link_changes_its_target_and_keeps_its_mode(opener):
    async def scenario(sandbox):
        await run(sandbox, "echo old > real; chmod 750 real; ln -s real link")
        await sandbox.write_file(f"{WORK}/link", b"new")
        return await run(sandbox, "cat real; stat -c ' %a' real; readlink link")

    assert use(opener, scenario).stdout == b"new 750\nreal\n"


def test_a_folder_copied_in_keeps_modes_and_links_and_leaves_other_files(file_opener, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tool.sh").write_text("#!/bin/sh\necho it works\n")
    (tmp_path / "sub" / "tool.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("sub/tool.sh")
    archive = pack_folder(tmp_path, "kit")

    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/new/place/kit/mine", b"stays")
        await sandbox.write_file(f"{WORK}/new/place/kit/sub/tool.sh", b"goes")
        await sandbox.copy_in(f"{WORK}/new/place", archive)
        stays = await sandbox.read_file(f"{WORK}/new/place/kit/mine")
        comes = await sandbox.read_file(f"{WORK}/new/place/kit/sub/tool.sh")
        if isinstance(sandbox, MemorySandbox):
            return stays, comes, b"it works\nsub/tool.sh\n"
        result = await run(sandbox, "new/place/kit/link; readlink new/place/kit/link")
        return stays, comes, result.stdout

    stays, comes, said = use(file_opener, scenario)
    assert stays.content == b"stays"
    assert comes.content.endswith(b"echo it works\n")
    assert said == b"it works\nsub/tool.sh\n"


def test_removing_takes_files_folders_and_what_is_not_there(file_opener):
    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/d/e/f", b"x")
        await sandbox.write_file(f"{WORK}/-g", b"x")
        await sandbox.write_file(f"{WORK}/dd", b"x")
        for path in ("d", "-g", "nope"):
            await sandbox.remove(f"{WORK}/{path}")
        for path in ("d/e/f", "-g"):
            with pytest.raises(FileError):
                await sandbox.read_file(f"{WORK}/{path}")
        return await sandbox.read_file(f"{WORK}/dd")

    assert use(file_opener, scenario).content == b"x"


def test_removing_a_link_leaves_its_target(opener):
    async def scenario(sandbox):
        await run(sandbox, "mkdir real; echo x > real/f; ln -s real link")
        await sandbox.remove(f"{WORK}/link")
        return await run(sandbox, "cat real/f; ls")

    assert use(opener, scenario).stdout == b"x\nreal\n"


def test_commands_at_the_same_time_do_not_mix(opener):
    async def scenario(sandbox):
        return await asyncio.gather(*(run(sandbox, f"sleep 0.2; echo {n}; exit {n}") for n in range(5)))

    found = use(opener, scenario)
    assert [(result.exit_code, result.stdout) for result in found] == [(n, f"{n}\n".encode()) for n in range(5)]
