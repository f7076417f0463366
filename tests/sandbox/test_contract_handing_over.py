"""How what stands in one sandbox gets into another: emptied, archived, copied in."""

import uuid
from contextlib import AsyncExitStack

import pytest

from realwork.errors import FileError, SandboxError, SandboxLost
from realwork.sandbox import labels
from realwork.sandbox.artifact import checked
from realwork.sandbox.base import Keep
from realwork.sandbox.changes import leaves
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect

from .helpers import WORK, make_spec, run, use

MAKE = (
    "mkdir -p d/e 'kept *' empty && echo a >a && echo b >d/e/b && ln -s /etc/passwd d/l && ln a d/h && chmod 750 d/e/b"
    " && echo pristine >d/conftest.py && echo x >d/x.pth && echo k >'kept */k' && mkdir 'kept */hollow'"
    " && echo n >'new\nline' && echo t >'*'"
)


def test_emptying_leaves_what_is_to_be_kept(file_opener):
    async def scenario(sandbox):
        for path in ("a", "d/e/b", "d/conftest.py", "d/x.pth", "kept */k", "kept/k", "new\nline"):
            await sandbox.write_file(f"{WORK}/{path}", path.encode())
        await sandbox.empty(WORK, keep=Keep(names=("conftest.py", "*.pth"), folders=("kept *",)))
        stays = {}
        for path in ("d/conftest.py", "d/x.pth", "kept */k"):
            stays[path] = (await sandbox.read_file(f"{WORK}/{path}")).content.decode()
        for path in ("a", "d/e/b", "kept/k", "new\nline"):
            with pytest.raises(FileError):
                await sandbox.read_file(f"{WORK}/{path}")
        return stays

    assert use(file_opener, scenario) == {path: path for path in ("d/conftest.py", "d/x.pth", "kept */k")}


def test_emptying_deletes_folders_but_those_that_something_stays_in(opener):
    async def scenario(sandbox):
        await run(sandbox, MAKE)
        await sandbox.empty(WORK, keep=Keep(names=("conftest.py",), folders=("kept *",)))
        return (await run(sandbox, "find . | sort")).stdout.decode().splitlines()

    found = use(opener, scenario)
    assert found == [".", "./d", "./d/conftest.py", "./kept *", "./kept */hollow", "./kept */k"]


def test_emptying_with_nothing_to_keep_leaves_nothing(opener):
    async def scenario(sandbox):
        await run(sandbox, MAKE)
        await sandbox.empty(WORK, keep=Keep())
        return (await run(sandbox, "ls -A")).stdout

    assert use(opener, scenario) == b""


def test_a_working_directory_gets_into_another_sandbox_as_it_was(opener):
    look = "find . | sort; cat d/e/b 'new\nline' '*'; readlink d/l; stat -c '%a %U' d/e/b; [ a -ef d/h ] && echo linked"

    async def scenario(source):
        await run(source, MAKE)
        before = (await run(source, look)).stdout
        await source.freeze()
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(opener(make_spec()))
            await target.copy_in(WORK, checked(source.archive(WORK), WORK))
            return before, (await run(target, look)).stdout

    before, after = use(opener, scenario)
    assert before == after
    assert before.endswith(b"linked\n")


def test_a_working_directory_that_is_gone_is_an_empty_one(docker_opener):
    async def scenario(source):
        await run(source, f"rm -rf {WORK}", working_directory="/")
        await source.freeze()
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(docker_opener(make_spec()))
            await target.copy_in(WORK, checked(source.archive(WORK), WORK))
            return (await run(target, "ls -A")).stdout

    assert use(docker_opener, scenario) == b""


def test_what_an_agent_linked_outside_its_working_directory_gets_there_too(opener):
    async def scenario(source):
        await run(source, "mkdir d && ln -s ../../etc/passwd d/l && ln -s ../etc m && mkfifo f && ln f g")
        await source.freeze()
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(opener(make_spec()))
            await target.copy_in(WORK, checked(source.archive(WORK), WORK))
            return (await run(target, "find . | sort; readlink d/l; readlink m")).stdout.decode().splitlines()

    found = use(opener, scenario)
    assert found[:-2] == [".", "./d", "./d/l", "./m"]
    assert [name.endswith(end) for name, end in zip(found[-2:], ("/etc/passwd", "etc"), strict=True)] == [True, True]


def test_a_container_that_is_gone_leaves_no_empty_working_directory(docker_opener):
    mark = f"gone-{uuid.uuid4().hex[:8]}"

    async def scenario(source):
        await source.freeze()
        client = connect()
        (found,) = client.containers(all=True, filters={"label": f"{labels.RUN}={mark}"})
        client.remove_container(found["Id"])
        client.close()
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(docker_opener(make_spec()))
            with pytest.raises(SandboxLost):
                await target.copy_in(WORK, checked(source.archive(WORK), WORK))

    use(docker_opener, scenario, labels={labels.RUN: mark})


def test_without_its_working_directory_a_sandbox_still_answers(docker_opener):
    async def scenario(sandbox):
        await run(sandbox, f"rm -rf {WORK}", working_directory="/")
        await sandbox.stop_processes()
        return (await run(sandbox, "echo here", working_directory="/", apart=True)).stdout

    assert use(docker_opener, scenario) == b"here\n"


def test_nothing_runs_in_a_frozen_sandbox(docker_opener):
    async def scenario(sandbox):
        await run(sandbox, "(while :; do date >>tick; sleep 0.05; done) >/dev/null 2>&1 &")
        await sandbox.freeze()
        first, second = (b"".join(sandbox.archive(WORK)) for _ in range(2))
        assert first == second
        with pytest.raises(SandboxError):
            await run(sandbox, "true")

    use(docker_opener, scenario)


def test_changes_outside_the_working_directory_are_counted(docker_image):
    async def scenario(sandbox):
        await run(sandbox, "echo 1 >inside; echo 1 >/tmp/scratch; mkdir /root/.cache; echo 1 >/root/.cache/x")
        untouched = await sandbox.changed_outside(WORK)
        await run(
            sandbox, "mkdir -p /opt; echo 1 >/opt/new; rm $(command -v yes); mkdir -p /srv/a/b; ln -s / /srv/link"
        )
        await run(sandbox, "echo '#' >>/etc/profile")
        await sandbox.freeze()
        return untouched, await sandbox.changed_outside(WORK)

    assert use(open_container, scenario) == (0, 5)


def test_the_engine_counts_the_same_changes():
    told = ["/etc", "/etc/issue", "/opt", "/opt/new", "/srv", "/srv/a", "/srv/a/b", "/srv/link", "/etc/profile"]
    assert sorted(leaves([{"Path": path} for path in told])) == [
        "/etc/issue",
        "/etc/profile",
        "/opt/new",
        "/srv/a/b",
        "/srv/link",
    ]
