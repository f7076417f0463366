"""What commands do in every sandbox that has a shell, whatever it is made of."""

import asyncio
import time

import pytest

from .helpers import WORK, run, unique_number, use


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
    (result,) = results(opener, "cat; echo $?; read line; echo $?", timeout_s=10)
    assert result.stdout == b"0\n1\n"


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
        await run(sandbox, f"setsid sleep {mark} >/dev/null 2>&1 & sleep 0.2")
        before = await run(sandbox, f"ps -eo args | grep -c 'slee[p] {mark}'")
        await sandbox.stop_processes()
        return before, await run(sandbox, f"ps -eo args | grep -c 'slee[p] {mark}'")

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


def test_commands_at_the_same_time_do_not_mix(opener):
    async def scenario(sandbox):
        return await asyncio.gather(*(run(sandbox, f"sleep 0.2; echo {n}; exit {n}") for n in range(5)))

    found = use(opener, scenario)
    assert [(result.exit_code, result.stdout) for result in found] == [(n, f"{n}\n".encode()) for n in range(5)]
