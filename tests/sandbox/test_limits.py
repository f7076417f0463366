"""Every limit of a sandbox, as processes inside meet it on a real engine."""

import asyncio
import json
import os
import time

import pytest

from realwork.backends import open_backends
from realwork.config import RunConfig
from realwork.errors import FileError, PrepareError, SandboxError
from realwork.limits import CAPABILITIES, NAMES
from realwork.model.scripted import ScriptedCall, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import run_rollout
from realwork.sandbox.artifact import checked
from realwork.sandbox.disk import DiskGuard
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect
from realwork.sandbox.files import pack_folder
from realwork.types import RolloutSpec

from .helpers import WORK, make_spec, run, use

pytestmark = pytest.mark.usefixtures("docker_image")
STATUS = "cat /proc/self/status"
FILL = "for i in $(seq 300); do dd if=/dev/zero of={path}$i bs=1M count=20 2>&1; sleep 0.1; done"
"""Not as fast as it could be, so that a budget that is not enforced fills no disk before the test has failed."""


def mask(names):
    return b"%016x" % sum(1 << NAMES.index(name) for name in names)


def status(result):
    return dict(line.split(b":\t", 1) for line in result.stdout.splitlines())


@pytest.fixture(params=[True, False], ids=["channel", "exec"])
def opener(request):
    return lambda spec: open_container(spec, with_channel=request.param)


@pytest.mark.parametrize("names", [(), CAPABILITIES, ("NET_BIND_SERVICE",), ("CHOWN", "NET_RAW")])
def test_root_has_the_capabilities_that_were_asked_for_and_no_others(opener, names):
    async def scenario(sandbox):
        return await run(sandbox, STATUS)

    found = status(use(opener, scenario, capabilities=names))
    assert found[b"CapEff"] == found[b"CapPrm"] == found[b"CapBnd"] == mask(names)
    assert (found[b"CapAmb"], found[b"NoNewPrivs"]) == (mask(()), b"1")


def test_without_raw_sockets_none_can_be_opened_and_with_them_one_can(opener):
    async def scenario(sandbox):
        return (await run(sandbox, "python3 -c 'import socket; socket.socket(2, 3, 1)'")).exit_code

    assert use(opener, scenario) == 1
    assert use(opener, scenario, capabilities=("NET_RAW",)) == 0


@pytest.mark.parametrize("user", ["nobody", "1234", "1234:4321"])
def test_a_user_runs_commands_owns_what_the_tools_write_and_has_no_capability(opener, user):
    async def scenario(sandbox):
        await run(sandbox, "mkdir -p deep/er; touch deep/er/made-by-init; ln -s /etc/passwd link")
        await sandbox.hand_over()
        await sandbox.write_file("/workspace/small", b"x")
        await sandbox.write_file("/workspace/new/large", b"x" * 100_000)
        await run(sandbox, "touch by-command")
        seen = await run(sandbox, "stat -c %u:%g . deep/er/made-by-init small new new/large by-command; id -u; id -g")
        return seen, await run(sandbox, STATUS), await run(sandbox, "stat -L -c %u link"), await run(sandbox, "id -u")

    seen, told, linked, _ = use(opener, scenario, user=user, working_directory="/workspace")
    uid, gid = {"nobody": (b"65534", b"65534"), "1234": (b"1234", b"0"), "1234:4321": (b"1234", b"4321")}[user]
    *owners, own_uid, own_gid = seen.stdout.split()
    assert [owner.partition(b":")[0] for owner in owners] == [uid] * 6
    assert (own_uid, own_gid) == (uid, gid)
    assert status(told)[b"CapEff"] == mask(())
    assert linked.stdout == b"0\n"


def test_a_user_cannot_change_what_is_roots_nor_become_root(opener):
    async def scenario(sandbox):
        await sandbox.hand_over()
        with pytest.raises(FileError, match="denied"):
            await sandbox.write_file("/etc/passwd", b"x")
        with pytest.raises(FileError):
            await sandbox.read_file("/etc/shadow")
        refused = [await run(sandbox, command) for command in ("touch /usr/x", "chown 0 .", "su -c id", "kill -0 1")]
        return [result.exit_code != 0 for result in refused]

    assert use(opener, scenario, user="1234") == [True] * 4


def test_what_a_user_leaves_running_ends_at_a_timeout_and_before_the_tests(opener):
    async def scenario(sandbox):
        await sandbox.hand_over()
        await run(sandbox, "setsid sleep 4321 >/dev/null 2>&1 &")
        cut = await run(sandbox, "trap '' TERM; sleep 4322; sleep 4323", timeout_s=1)
        between = await run(sandbox, "ps -eo args | grep -c '[s]leep 432'")
        await sandbox.stop_processes()
        return cut, between, await run(sandbox, "ps -eo args | grep -c '[s]leep 432'", apart=True)

    cut, between, after = use(opener, scenario, user="1234:1234")
    assert cut.timed_out
    assert (between.stdout, after.stdout) == (b"1\n", b"0\n")


def test_folders_that_are_copied_in_again_belong_to_the_user(opener, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it").write_text("x")

    async def scenario(sandbox):
        await sandbox.hand_over()
        await sandbox.copy_in("/workspace/sub", pack_folder(tmp_path / "tests", "tests"))
        owner = await run(sandbox, "stat -c %u sub/tests sub/tests/test_it")
        await sandbox.remove("/workspace/sub")
        return owner, await run(sandbox, "ls -A")

    owner, left = use(opener, scenario, user="1234")
    assert (owner.stdout.split(), left.stdout) == ([b"1234"] * 2, b"")


def test_a_user_that_the_image_does_not_have_is_an_error_that_names_it():
    async def scenario(sandbox):
        await sandbox.hand_over()

    with pytest.raises(PrepareError, match=r"/workspace cannot be given to the user no-such-user: .*no such user"):
        use(open_container, scenario, user="no-such-user")


def test_with_a_read_only_root_only_the_places_for_work_can_be_written(opener):
    async def scenario(sandbox):
        await sandbox.hand_over()
        refused = await run(sandbox, "touch /usr/x /etc/x /root/x /var/tmp/x; rm /bin/sh")
        with pytest.raises(FileError, match="Read-only"):
            await sandbox.write_file("/etc/passwd", b"x")
        await sandbox.write_file("/workspace/a/b", b"content")
        made = await run(sandbox, "cp a/b /tmp/script && cp a/b /dev/shm/x && printf 'echo ran' >/tmp/s && sh /tmp/s")
        return refused, made

    refused, made = use(opener, scenario, read_only=True)
    assert refused.stderr.count(b"Read-only file system") == 5
    assert (made.exit_code, made.stdout) == (0, b"ran\n")


def test_what_was_written_under_a_read_only_root_can_be_taken_out_when_the_container_has_stopped():
    client, mounts = connect(), []
    spec = make_spec(read_only=True, user="1234")

    async def scenario(sandbox):
        await sandbox.hand_over()
        await run(sandbox, "echo kept > result")
        mounts.extend(client.inspect_container(spec.name)["Mounts"])
        await asyncio.to_thread(client.stop, spec.name, timeout=0)
        chunks, _ = await asyncio.to_thread(client.get_archive, spec.name, "/workspace")
        return b"".join(chunks)

    archive = use(open_container, scenario, **spec.model_dump())
    assert b"workspace/result" in archive
    assert b"kept\n" in archive
    (volume,) = [each["Name"] for each in mounts if each["Type"] == "volume"]
    assert volume not in [each["Name"] for each in client.volumes()["Volumes"] or []]
    client.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_past_its_disk_budget_everything_is_killed_and_the_sandbox_says_so(opener, read_only):
    async def scenario(sandbox):
        before = sandbox.is_disk_full
        began = time.monotonic()
        result = await run(sandbox, f"({FILL.format(path='big')}) & wait; echo survived", timeout_s=60)
        took = time.monotonic() - began
        size = await run(sandbox, "stat -c %s big1; echo fine", apart=True)
        return before, result, took, size, sandbox.is_disk_full, sandbox.not_enforced

    before, result, took, size, after, not_enforced = use(opener, scenario, disk_mib=64, read_only=read_only)
    assert (before, after) == (False, True)
    assert (result.exit_code, result.timed_out) == (137, False)
    assert took < 15
    assert size.stdout.split()[1] == b"fine"
    assert b"survived" not in result.stdout
    assert "disk_quota" in not_enforced


HIDING = {
    "open": "exec 3>f; rm f; dd if=/dev/zero bs=1M count=120 >&3 2>/dev/null; sleep 30",
    "named as if it lay in memory": "mkdir /memfd:x && cd /memfd:x; exec 3>f; rm f; "
    "dd if=/dev/zero bs=1M count=120 >&3 2>/dev/null; sleep 30",
    "mapped": "python3 -c \"import mmap, os, time\nfile = open('f', 'w+b')\nfile.truncate(120 << 20)\n"
    "seen = mmap.mmap(file.fileno(), 0)\nfile.close()\nos.remove('f')\nseen.write(b'x' * (120 << 20))\n"
    'time.sleep(30)"',
}


@pytest.mark.skipif(os.getuid() != 0, reason="only root sees what processes have open")
@pytest.mark.parametrize("command", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_without_a_name_counts_as_well(command, read_only):
    async def scenario(sandbox):
        result = await run(sandbox, command, timeout_s=20)
        return result.exit_code, sandbox.is_disk_full

    assert use(open_container, scenario, disk_mib=64, read_only=read_only) == (137, True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root sees what lies in a volume")
def test_what_an_image_keeps_in_a_volume_counts_from_where_it_began():
    client = connect()
    base = client.create_container(
        "realwork/base:bookworm", ["sh", "-c", "mkdir /data; head -c 90000000 /dev/zero >/data/a"]
    )
    try:
        client.start(base)
        client.wait(base)
        image = client.commit(base, conf={"Volumes": {"/data": {}}})["Id"]
    finally:
        client.remove_container(base, force=True)

    async def scenario(sandbox):
        await run(sandbox, "sleep 4")
        before = sandbox.is_disk_full
        result = await run(sandbox, "head -c 120000000 /dev/zero >/data/b; sleep 20", timeout_s=20)
        return before, result.exit_code, sandbox.is_disk_full

    try:
        assert use(open_container, scenario, disk_mib=64, image=image) == (False, 137, True)
    finally:
        client.remove_image(image)
        client.close()


def test_a_file_without_a_name_that_lies_in_memory_does_not_count():
    command = "for f in /dev/shm/f; do exec 3>$f; rm $f; dd if=/dev/zero bs=1M count=60 >&3; done; sleep 4; echo fine"

    async def scenario(sandbox):
        result = await run(sandbox, command, timeout_s=20)
        return result.stdout, sandbox.is_disk_full

    assert use(open_container, scenario, disk_mib=32) == (b"fine\n", False)


def test_without_a_budget_nothing_is_measured():
    async def scenario(sandbox):
        await run(sandbox, "dd if=/dev/zero of=big bs=1M count=100")
        await asyncio.sleep(2.5)
        return sandbox.is_disk_full, len(asyncio.all_tasks())

    assert use(open_container, scenario, disk_mib=None) == (False, 1)


def test_a_closed_or_cancelled_sandbox_leaves_no_task_that_measures():
    async def main():
        async with open_container(make_spec(disk_mib=64)):
            opened = len(asyncio.all_tasks())

        async def cut():
            async with open_container(make_spec(disk_mib=64)):
                await asyncio.sleep(60)

        task = asyncio.create_task(cut())
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.wait({task})
        return opened, len(asyncio.all_tasks())

    assert asyncio.run(main()) == (2, 1)


def test_tests_that_run_after_the_budget_was_passed_have_one_more():
    async def scenario(sandbox):
        await run(sandbox, FILL.format(path="big"), timeout_s=60)
        await sandbox.stop_processes()
        modest = await run(sandbox, "dd if=/dev/zero of=more bs=1M count=30; sleep 2.5; echo passed", apart=True)
        greedy = await run(sandbox, FILL.format(path="most"), timeout_s=60, apart=True)
        return modest.stdout, greedy.exit_code

    assert use(open_container, scenario, disk_mib=64) == (b"passed\n", 137)


def played(command, **limits):
    """The trajectory of a rollout in which the agent runs `command`, with limits of its environment."""
    config = RunConfig.model_validate(
        {
            "environments": [
                {
                    "id": "e",
                    "docker_image": "realwork/base:bookworm",
                    "prompt": "p",
                    "init_commands": ["id -u > set-up-by"],
                    "init_network": "none",
                    "unit_tests": ["test $(cat set-up-by) = 0", "id -u > tested-by && echo tested by $(cat tested-by)"],
                    "sandbox_config": limits,
                }
            ],
            "rollout_config": {},
            "template_prompt": "t",
            "sandbox_config": {"memory_mib": 256},
        }
    )
    reply = ScriptedReply(tool_calls=(ScriptedCall(name="execute_command", arguments={"command": command}),))
    settings = RolloutSettings(config=config, script=(reply,))

    async def main():
        async with open_backends(settings) as backends:
            spec = RolloutSpec(run_id="r", environment_id="e", sample_index=0, seed=7)
            return await run_rollout(spec, settings, backends, NoHooks())

    return asyncio.run(main())


def test_what_is_copied_in_does_not_count_as_written(docker_image):
    async def scenario(sandbox):
        await run(sandbox, "head -c 40000000 /dev/urandom >large")
        await sandbox.freeze()
        async with open_container(make_spec(disk_mib=32)) as target:
            await target.copy_in(WORK, checked(sandbox.archive(WORK), WORK))
            result = await run(target, "sleep 4; echo fine")
            return result.stdout, target.is_disk_full

    assert use(open_container, scenario, disk_mib=None) == (b"fine\n", False)


def test_a_slow_look_that_began_before_a_copy_does_not_count_it():
    kills, written = [], [0]

    async def kill():
        kills.append(written[0])

    async def measure():
        await asyncio.sleep(0.5)
        return written[0]

    async def scenario():
        guard = DiskGuard(50, measure, kill)
        task = asyncio.create_task(guard.watch())
        await asyncio.sleep(1.2)
        async with guard.not_counting():
            written[0] = 80
            await asyncio.sleep(2)
        await asyncio.sleep(2)
        task.cancel()
        return guard.is_full

    assert not asyncio.run(scenario())
    assert kills == []


def test_a_guard_whose_first_kill_fails_gives_the_tests_their_budget_all_the_same():
    kills, written = [], [100]

    async def kill():
        kills.append(written[0])
        if len(kills) == 1:
            raise SandboxError("busy")

    async def measure():
        return written[0]

    async def scenario():
        guard = DiskGuard(50, measure, kill)
        task = asyncio.create_task(guard.watch())
        await asyncio.sleep(3.5)
        written[0] = 140
        await asyncio.sleep(2.5)
        task.cancel()
        return guard.is_full

    assert asyncio.run(scenario())
    assert kills == [100, 100]


def test_an_agent_that_fills_the_disk_ends_its_episode_and_is_graded():
    trajectory = played(FILL.format(path="/big"), disk_mib=64)
    assert (trajectory.status, trajectory.terminated_reason) == ("truncated", "disk_limit")
    assert (trajectory.reward, trajectory.failure_cause) == (1.0, None)
    assert "More was written to disk than is allowed" in trajectory.steps[0].observations[0].error
    assert "disk_quota" in json.loads(trajectory.metadata)["not_enforced"]


def test_set_up_is_roots_and_the_agent_and_the_tests_are_the_user_of_their_environment():
    trajectory = played("id -u; cat set-up-by; touch new && stat -c %u new", user="1234")
    assert trajectory.steps[0].observations[0].output.split() == ["1234", "0", "1234"]
    assert trajectory.reward == 1.0
    assert trajectory.test_results[1].output == "tested by 1234\n"
