"""A11 to A19: what an agent starts, keeps, kills and stops."""

import asyncio
import time

import pytest

from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect
from tests.sandbox.helpers import make_spec, run

from .agents import MODES, attack

pytestmark = pytest.mark.usefixtures("docker_image")
AFTER = "echo fine; exit 3"
SAME = {"mode": "same"}


def is_fine(observation):
    return (observation.output, observation.exit_code) == ("fine\n", 3)


def test_a11_a_command_ends_although_its_child_holds_its_output():
    """Where the end of the output counts as the end of the command, instead of its exit, this fails in both modes."""

    for agent in attack("sleep 300 & echo started", AFTER):
        started, after = agent.observations
        assert (started.exit_code, started.output) == (0, "started\n"), agent.mode
        assert started.duration_s < 2
        assert is_fine(after)


def test_a12_a_daemon_lives_through_the_episode_and_not_into_the_tests():
    """Without `stop_processes` before the tests this fails: the daemon still beats."""

    daemon = "setsid nohup sh -c 'while :; do touch /workspace/beat; sleep 0.1; done' >/dev/null 2>&1 &"
    still = "rm beat; sleep 1; test -e beat"
    for agent in attack(daemon, still, unit_tests=["rm -f beat; sleep 1; ! test -e beat"], grading_config=SAME):
        assert [one.exit_code for one in agent.observations] == [0, 0], agent.mode


def test_a14_a_command_that_ignores_signals_is_killed_soon_after_its_deadline():
    """Without the KILL that follows TERM in `END_SESSION` this fails: the loop goes on."""

    stubborn = "trap '' TERM INT HUP; echo on; while :; do sleep 1; done"
    for agent in attack(stubborn, "ps -eo args | grep -c '[t]rap .. TERM'", AFTER):
        cut, left, after = agent.observations
        assert (cut.status, cut.output) == ("timeout", "on\n"), agent.mode
        assert 5 <= cut.duration_s < 5 + 5
        assert left.output == "0\n"
        assert is_fine(after)


def test_a15_standard_input_is_at_its_end():
    """Without standard input from `/dev/null` this fails: the channel's or the exec's input stays open."""

    for agent in attack("cat; echo $?", "python3 -c 'input()'", "git init -q . && git commit"):
        cat, python, commit = agent.observations
        assert cat.output == "0\n", agent.mode
        assert "EOFError" in python.error
        assert commit.exit_code > 0
        assert max(one.duration_s for one in agent.observations) < 4


def test_a16_killing_everything_again_and_again_leaves_a_container_that_answers():
    """Without a new shell for one that was killed this fails."""

    for agent in attack("echo part; kill -9 -1; sleep 1", "kill -TERM -1", "kill -9 -1", AFTER, AFTER):
        first, *_, after = agent.observations
        assert first.output in ("", "part\n"), agent.mode
        assert first.exit_code in (0, 137)
        assert is_fine(after)


def test_a17_the_first_process_is_not_killed_stopped_or_traced():
    """Without `setpriv` before process 1 it is traced; where it is a child of another one, it is killed: this fails."""

    trace = "import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))"
    kills = ["kill -TERM 1; kill -9 1; kill -STOP 1", "pkill -STOP sleep; pkill -KILL sleep", f"python3 -c '{trace}'"]
    for agent in attack(*kills, "grep State: /proc/1/status", AFTER):
        *_, traced, state, after = agent.observations
        assert traced.output == "-1\n", agent.mode
        assert state.output.split()[1] == "S"
        assert is_fine(after)


@pytest.mark.parametrize("mode", MODES)
def test_a17_a_container_whose_first_process_was_attacked_still_ends_at_its_deadline(mode):
    """Without its own deadline (`FIRST_PROCESS`) this fails: the container runs on."""

    spec, client = make_spec(deadline_s=3.0), connect()

    async def scenario():
        began = time.monotonic()
        async with open_container(spec, with_channel=mode == "channel") as sandbox:
            await run(sandbox, "kill -STOP 1; kill -9 1; pkill -STOP sleep", timeout_s=1)
            while client.inspect_container(spec.name)["State"]["Running"]:
                await asyncio.sleep(0.2)
                assert time.monotonic() - began < 3 + 15

    try:
        asyncio.run(scenario())
    finally:
        client.close()


def test_a18_orphans_leave_no_zombies():
    """Without `--ignore-signal=CHLD` for process 1 this fails: zombies use up the process limit."""

    orphans = "i=0; while [ $i -lt 500 ]; do (sleep 0.01 &); i=$((i + 1)); done; sleep 1; ls -d /proc/[0-9]* | wc -l"
    for agent in attack(f"{orphans}; ps -eo stat | grep -c Z", timeouts={"command_timeout": 20.0}):
        (observation,) = agent.observations
        left, zombies = map(int, observation.output.split())
        assert (left < 12, zombies) == (True, 0), (agent.mode, observation.error)


def test_a19_sleeping_past_every_budget_ends_with_the_episode():
    """Without the time of the episode, and without that of the command, this fails."""

    timeouts = {"command_timeout": 1.0, "global_timeout": 5.0}
    for agent in attack(*["sleep 9999"] * 30, reason="global_timeout", timeouts=timeouts):
        cut = [one for one in agent.observations if one.status == "timeout"]
        assert 2 <= len(cut) <= 5, agent.mode
        assert all(one.duration_s < 1 + 3 for one in cut)
        assert agent.took_s < 5 + 30
