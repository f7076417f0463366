"""Commands on an engine that is late: each runs once or is ended, and one slow answer costs no attempt."""

import asyncio
import time

import pytest

from realwork.sandbox.channel import KILLED
from realwork.sandbox.docker import open_container

from .helpers import make_spec, run, shell_of, unique_number
from .slow import slow_engine

pytestmark = pytest.mark.usefixtures("docker_image")


def with_slow_engine(scenario, *, with_channel):
    async def main():
        async with (
            slow_engine() as (engine, client),
            open_container(make_spec(), engine=engine, with_channel=with_channel) as sandbox,
        ):
            return await scenario(sandbox, client)

    return asyncio.run(main())


@pytest.mark.parametrize(("then", "exit_codes"), [("exit 0", {0, KILLED}), ("sleep 60; echo twice >>log", {KILLED})])
def test_a_command_whose_start_is_told_late_runs_once(then, exit_codes):
    async def scenario(sandbox, client):
        await run(sandbox, "true")
        await asyncio.sleep(1.0)  # the shell says that it is free before it falls silent
        client.silent_until = time.monotonic() + 4.5
        late = await run(sandbox, f"echo once >>log; {then}")
        return late, await run(sandbox, "cat log; pgrep -c -x sleep"), await shell_of(sandbox)

    late, after, shell = with_slow_engine(scenario, with_channel=True)
    assert late.exit_code in exit_codes
    assert after.stdout == b"once\n1\n"  # the first process is a sleep
    assert shell != 0


@pytest.mark.parametrize("slow", ["start_s", "silent_until"])
def test_a_command_whose_caller_goes_while_it_starts_is_ended(slow):
    number = unique_number()

    async def scenario(sandbox, client):
        setattr(client, slow, 1.0 if slow == "start_s" else time.monotonic() + 1.0)
        running = asyncio.create_task(run(sandbox, f"sleep {number}"))
        await asyncio.sleep(0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        client.start_s = 0.0
        return await run(sandbox, f"pgrep -f -x 'sleep {number}'")

    assert with_slow_engine(scenario, with_channel=False).stdout == b""


@pytest.mark.parametrize("with_channel", [True, False])
def test_one_look_at_a_command_that_takes_too_long_does_not_fail_it(with_channel):
    async def scenario(sandbox, client):
        await run(sandbox, "true")
        client.looks = [11.0]
        return await run(sandbox, "sleep 1; echo fine")

    assert with_slow_engine(scenario, with_channel=with_channel).stdout == b"fine\n"
