"""What a container does beyond the contract: limits, isolation, and how it comes and goes."""

import asyncio
import contextlib
import resource
import time

import pytest
from docker.errors import NotFound

from realwork.errors import FileError, ImageError, SandboxError, SandboxLost
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect, open_engine

from .helpers import make_spec, run, use

pytestmark = pytest.mark.usefixtures("docker_image")


@pytest.fixture
def client():
    client = connect()
    yield client
    client.close()


def names(client):
    return {name.lstrip("/") for found in client.containers(all=True) for name in found["Names"]}


def outputs(*commands, **fields):
    async def scenario(sandbox):
        return [await run(sandbox, command) for command in commands]

    return use(open_container, scenario, **fields)


def test_without_a_network_there_is_only_the_loopback():
    links, reach = outputs(
        "ls /sys/class/net", "python3 -c \"import socket; socket.create_connection(('1.1.1.1', 53), 3)\""
    )
    assert links.stdout.split() == [b"lo"]
    assert reach.exit_code == 1


def test_a_network_is_cut_off_and_stays_so():
    async def scenario(sandbox):
        before = await run(sandbox, "ls /sys/class/net")
        await sandbox.set_network("none")
        await sandbox.set_network("none")
        return before, await run(sandbox, "ls /sys/class/net")

    before, after = use(open_container, scenario, network="bridge")
    assert b"eth0" in before.stdout.split()
    assert after.stdout.split() == [b"lo"]


def test_processes_have_few_capabilities_no_new_privileges_and_a_system_call_filter():
    (result,) = outputs("cat /proc/self/status")
    status = dict(line.split(b":\t", 1) for line in result.stdout.splitlines())
    assert status[b"CapEff"] == status[b"CapBnd"] == b"00000000000000fb"
    assert (status[b"NoNewPrivs"], status[b"Seccomp"]) == (b"1", b"2")


@pytest.mark.parametrize(
    "command", ["mount -t tmpfs x /mnt", "mknod x c 1 3", "chroot /", "unshare -Ur true", "date -s 0"]
)
def test_what_only_a_real_root_may_is_refused(command):
    (result,) = outputs(command)
    assert result.exit_code != 0


def test_package_managers_and_changes_of_user_work():
    (result,) = outputs(
        "cd / && mkdir -p /tmp/x/DEBIAN && printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\n"
        "Description: x\\n' > /tmp/x/DEBIAN/control && dpkg-deb -b /tmp/x /tmp/x.deb && dpkg -i /tmp/x.deb"
        " && chown 1000:1000 /tmp/x && python3 -c 'import os; os.setgid(1000); os.setuid(1000); print(os.getuid())'"
    )
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, b"1000")


def test_running_out_of_memory_is_told_and_leaves_the_container_usable():
    bomb, after, killed = outputs(
        "python3 -c 'x = bytearray(4 << 30); x[:] = b\"1\" * len(x)'", "echo fine", "kill -9 $$", memory_mib=64
    )
    assert bomb.oom
    assert bomb.exit_code in (1, 137)
    assert (after.stdout, after.oom) == (b"fine\n", False)
    assert (killed.exit_code, killed.oom) == (137, False)


def test_shared_memory_is_bounded():
    (result,) = outputs("dd if=/dev/zero of=/dev/shm/x bs=1M count=64", shm_mib=8)
    assert b"No space left" in result.stderr


def test_much_output_does_not_grow_our_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (result,) = outputs("head -c 200000000 /dev/zero")
    assert result.stdout_bytes == 200_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


@pytest.mark.parametrize(
    "bomb",
    [
        "bomb() { bomb | bomb & }; bomb; sleep 60",
        "python3 -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'",
    ],
)
def test_a_fork_bomb_is_bounded_cut_and_swept_away(bomb):
    async def scenario(sandbox):
        began = time.monotonic()
        result = await run(sandbox, f"bash -c '{bomb}'" if "bomb()" in bomb else bomb, timeout_s=3)
        took = time.monotonic() - began
        await sandbox.stop_processes()
        return result, took, await run(sandbox, "ps -e | wc -l")

    result, took, left = use(open_container, scenario)
    assert result.timed_out or result.exit_code != 0
    assert took < 9
    assert int(left.stdout) < 8


def stopped_after(client, command):
    """What runs in a container once what `command` has left is stopped, and whether that took an exec."""
    spec = make_spec()

    async def scenario(sandbox):
        await run(sandbox, command)
        await sandbox.stop_processes()
        return await run(sandbox, "pgrep -xc sleep")

    began = int(time.time())
    left = use(open_container, scenario, name=spec.name)
    events = client.events(since=began, until=int(time.time()) + 1, decode=True, filters={"container": spec.name})
    return left.stdout, any("kill -9 -1" in event["Action"] for event in events)


def test_stopping_what_runs_takes_an_exec_only_where_something_does(client):
    assert stopped_after(client, "true") == (b"1\n", False)
    assert stopped_after(client, "sleep 60 >/dev/null 2>&1 &") == (b"1\n", True)


def test_nothing_inside_can_end_or_stop_the_first_process():
    *_, after = outputs(
        "kill -9 -1", "kill -TERM 1; kill -INT 1; kill -9 1", "pkill -STOP sleep; pkill -KILL sleep", "echo fine"
    )
    assert after.stdout == b"fine\n"


def test_orphans_leave_no_zombies():
    (result,) = outputs("for i in $(seq 300); do (sleep 0.01 &); done; sleep 1; ps -eo stat | grep -c Z")
    assert result.stdout == b"0\n"


def test_without_a_shell_left_commands_are_not_found():
    _, result = outputs("rm /bin/sh /usr/bin/sh", "echo never")
    assert result.exit_code in (126, 127)
    assert (result.stdout, b"no such file" in result.stderr.lower()) == (b"", True)


def test_a_timeout_reaches_the_whole_session_whatever_its_processes_are_called():
    script = 'import ctypes, time; ctypes.CDLL(None).prctl(15, b") S 1 1\\n(", 0, 0, 0); time.sleep(65)'

    async def scenario(sandbox):
        result = await run(
            sandbox, f"timeout 99 python3 -c '{script}' & setsid sleep 66 >/dev/null 2>&1 & wait", timeout_s=1
        )
        return result, await run(sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '[p]rctl.15'")

    result, left = use(open_container, scenario)
    assert result.timed_out
    assert left.stdout == b"0\n"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/1/mem", "/proc/1/fd/1", "/", "/workspace/..", ""])
def test_devices_and_folders_are_file_errors(path):
    async def scenario(sandbox):
        with pytest.raises(FileError):
            await sandbox.read_file(path)

    use(open_container, scenario)


def test_an_absolute_link_is_followed_inside_the_container_only(tmp_path):
    (tmp_path / "canary").write_text("host")

    async def scenario(sandbox):
        await run(sandbox, f"ln -s {tmp_path}/canary x; ln -s /etc/passwd y")
        with pytest.raises(FileError):
            await sandbox.read_file("/workspace/x")
        return await sandbox.read_file("/workspace/y")

    assert b"root:" in use(open_container, scenario).content


def test_the_container_is_labelled_limited_and_logs_nothing(client):
    async def scenario(sandbox):
        await run(sandbox, "head -c 100000 /dev/zero > /proc/1/fd/1 || true")
        return client.inspect_container(spec.name), sandbox.image_digest

    spec = make_spec(labels={"realwork.run": "r"})
    found, digest = use(open_container, scenario, **spec.model_dump())
    host = found["HostConfig"]
    assert {"realwork.run", "realwork.owner", "realwork.deadline", "realwork.lease"} <= set(found["Config"]["Labels"])
    assert host["LogConfig"]["Type"] == "none"
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert (host["PidsLimit"], host["NanoCpus"], host["Binds"]) == (128, 10**9, None)
    assert digest == found["Image"] == client.inspect_image(spec.image)["Id"]


def test_a_working_directory_is_made_whatever_it_is_called():
    async def scenario(sandbox):
        return await run(sandbox, "pwd", working_directory="/a b/'; rm -rf x/é")

    assert (
        use(open_container, scenario, working_directory="/a b/'; rm -rf x/é").stdout == "/a b/'; rm -rf x/é\n".encode()
    )


def test_the_container_ends_by_itself_at_its_deadline(client):
    async def scenario(sandbox):
        await asyncio.sleep(2.5)
        with contextlib.suppress(NotFound):  # a reaper of this machine has come by
            assert client.inspect_container(spec.name)["State"]["Running"] is False
        with pytest.raises(SandboxLost):
            await run(sandbox, "true")
        with pytest.raises(SandboxLost):
            await sandbox.read_file("/etc/passwd")

    spec = make_spec(deadline_s=1.0)
    use(open_container, scenario, **spec.model_dump())


@pytest.mark.parametrize("loss", ["kill", "remove_container", "pause"])
def test_a_container_lost_under_a_command_is_told_soon(client, loss):
    async def scenario(sandbox):
        options = {"force": True} if loss == "remove_container" else {}
        asyncio.get_running_loop().call_later(0.5, lambda: getattr(client, loss)(spec.name, **options))
        began = time.monotonic()
        with pytest.raises(SandboxLost):
            await run(sandbox, "sleep 60", timeout_s=3)
        assert time.monotonic() - began < 9

    spec = make_spec()
    use(open_container, scenario, **spec.model_dump())
    assert spec.name not in names(client)


def test_an_image_that_is_missing_is_named():
    with pytest.raises(ImageError, match="realwork/nothing:here"):
        outputs(image="realwork/nothing:here")


def test_a_network_that_does_not_exist_is_named_and_leaves_nothing(client):
    spec = make_spec(network="no-such-network")
    with pytest.raises(SandboxError, match="no-such-network"):
        outputs(**spec.model_dump())
    assert spec.name not in names(client)


def test_a_name_of_somebody_else_is_refused_and_their_container_stays(client):
    spec = make_spec()
    client.create_container(spec.image, ["sleep", "60"], name=spec.name)
    try:
        with pytest.raises(SandboxError, match="already in use"):
            outputs(**spec.model_dump())
        assert spec.name in names(client)
    finally:
        client.remove_container(spec.name, force=True)


def test_a_name_that_is_ours_and_in_use_is_refused(client):
    spec = make_spec()

    async def scenario(sandbox):
        with pytest.raises(SandboxError, match="already in use"):
            async with open_container(spec):
                pass
        return await run(sandbox, "echo fine")

    assert use(open_container, scenario, **spec.model_dump()).stdout == b"fine\n"


def test_an_error_inside_the_block_passes_and_the_container_goes(client):
    spec = make_spec()

    async def scenario(sandbox):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use(open_container, scenario, **spec.model_dump())
    assert spec.name not in names(client)


@pytest.mark.parametrize(
    ("delay_s", "times"), [(0.0, 1), (0.01, 1), (0.03, 1), (0.06, 1), (0.1, 1), (0.2, 1), (0.6, 1), (0.02, 3), (0.2, 3)]
)
def test_cancelled_at_any_moment_it_leaves_no_container(client, delay_s, times):
    spec = make_spec()

    async def main():
        async with open_engine() as engine:

            async def play():
                async with open_container(spec, engine=engine) as sandbox:
                    await run(sandbox, "sleep 60", timeout_s=100)

            task = asyncio.create_task(play())
            for _ in range(times):
                await asyncio.sleep(delay_s)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert spec.name not in names(client)
