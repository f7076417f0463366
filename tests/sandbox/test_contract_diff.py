"""What became of a folder that a sandbox was told to remember, however it can look at it: by the layers of a container,
by two archives of it, or by two of a volume or of a folder of this machine."""

import asyncio
import os
import uuid
from functools import partial
from pathlib import Path

import pytest

from realwork.sandbox import labels, snapshots
from realwork.sandbox.docker import DockerSandbox, open_container
from realwork.sandbox.engine import connect, open_engine
from realwork.sandbox.files import pack_folder
from realwork.sandbox.local import open_local
from realwork.sandbox.overlay import Overlay, overlay_of

from .helpers import WORK, make_spec, run, use
from .images import image_after, temporary_image

GIVEN = r"""
mkdir -p src/deep keep && printf '1\n2\n3\n' >src/a.py && echo same >same && printf gone >gone && echo 1 >keep/one
echo 2 >keep/two && printf '\0\1' >binary && ln -s a.py src/link && echo run >run.sh && head -c 300000 /dev/zero >large
echo own >own && chmod 600 own && printf 'caf\351\n' >latin && echo x >"$(printf 'n\351')"
"""
LEFT_ALONE = "touch same; chmod go-r same; cat src/a.py; mkdir empty"


@pytest.fixture(scope="session")
def worked(docker_image):
    """The base image with GIVEN in its working directory."""
    with temporary_image(image_after(f"mkdir -p {WORK} && cd {WORK} && {GIVEN}")) as name:
        yield name


@pytest.fixture(params=["layers", "archive", "volume", "local"])
def diff_after(request):
    """What the diff says when commands have run on GIVEN."""
    if request.param == "local":
        opener = open_local
    else:
        image = request.getfixturevalue("docker_image" if request.param == "archive" else "worked")
        fixed = {"image": image, "read_only": request.param == "volume"}
        opener = lambda spec: open_container(spec.model_copy(update=fixed))  # noqa: E731

    def after(*commands, **fields):
        async def scenario(sandbox):
            if request.param in ("archive", "local"):
                await done(sandbox, GIVEN)
            await sandbox.hand_over()
            await sandbox.remember(WORK)
            for command in commands:
                await done(sandbox, command)
            await sandbox.stop_processes()
            return await sandbox.diff()

        return use(opener, scenario, **fields)

    return after


async def done(sandbox, command):
    result = await run(sandbox, command)
    assert (result.exit_code, result.stderr) == (0, b"")


def part(path, *header, lines=()):
    return "".join(f"{line}\n" for line in (f"diff --git a/{path} b/{path}", *header, *lines))


def added(path, *lines, mode="100644"):
    header = f"new file mode {mode}", "--- /dev/null", f"+++ b/{path}"
    return part(path, *header, f"@@ -0,0 +1{f',{len(lines)}' if len(lines) > 1 else ''} @@", lines=lines)


def test_nothing_changed_is_an_empty_diff(diff_after):
    assert diff_after(LEFT_ALONE) == ""


def test_files_that_were_added_changed_and_deleted_are_told_in_order(diff_after):
    text = diff_after("printf '1\\ntwo\\n3\\n' >src/a.py; mkdir new; echo a >new/a; printf b >b; rm gone; : >zero")
    assert text == (
        part("b", "new file mode 100644", "--- /dev/null", "+++ b/b", "@@ -0,0 +1 @@", "+b")
        + "\\ No newline at end of file\n"
        + part("gone", "deleted file mode 100644", "--- a/gone", "+++ /dev/null", "@@ -1 +0,0 @@", "-gone")
        + "\\ No newline at end of file\n"
        + added("new/a", "+a")
        + part("src/a.py", "--- a/src/a.py", "+++ b/src/a.py", "@@ -1,3 +1,3 @@", " 1", "-2", "+two", " 3")
        + part("zero", "new file mode 100644")
    )


def test_folders_that_went_and_came_back_differ_by_their_files(diff_after):
    text = diff_after("rm -r keep src && mkdir keep && echo 2 >keep/two && mkdir -p src/deep && echo 3 >src/deep/a")
    assert text == (
        part("keep/one", "deleted file mode 100644", "--- a/keep/one", "+++ /dev/null", "@@ -1 +0,0 @@", "-1")
        + part("src/a.py", "deleted file mode 100644", "--- a/src/a.py", "+++ /dev/null", "@@ -1,3 +0,0 @@")
        + "-1\n-2\n-3\n"
        + added("src/deep/a", "+3")
        + part("src/link", "deleted file mode 120000", "--- a/src/link", "+++ /dev/null", "@@ -1 +0,0 @@", "-a.py")
        + "\\ No newline at end of file\n"
    )


def test_a_folder_that_was_moved_is_deleted_and_added(diff_after):
    text = diff_after("mv keep kept")
    names = [line for line in text.splitlines() if line.startswith("diff")]
    assert names == [f"diff --git a/{name} b/{name}" for name in ("keep/one", "keep/two", "kept/one", "kept/two")]


def test_modes_links_and_binary_files(diff_after):
    text = diff_after("chmod +x run.sh; ln -sfn deep src/link; printf '\\0\\2' >binary; rm same; ln -s own same")
    assert text == (
        part("binary", "Binary files a/binary and b/binary differ")
        + part("run.sh", "old mode 100644", "new mode 100755")
        + part("same", "deleted file mode 100644", "--- a/same", "+++ /dev/null", "@@ -1 +0,0 @@", "-same")
        + added("same", "+own", mode="120000")
        + "\\ No newline at end of file\n"
        + part("src/link", "--- a/src/link", "+++ b/src/link", "@@ -1 +1 @@", "-a.py", "\\ No newline at end of file")
        + "+deep\n\\ No newline at end of file\n"
    )


def test_a_file_in_the_place_of_a_folder_and_a_folder_in_that_of_a_file(diff_after):
    text = diff_after("rm -r keep && echo k >keep && rm gone && mkdir gone && echo g >gone/g")
    names = [line.split()[-1] for line in text.splitlines() if line.startswith(("diff", "new", "deleted"))]
    assert names[::2] == ["b/gone", "b/gone/g", "b/keep", "b/keep/one", "b/keep/two"]


def test_names_and_texts_that_are_no_unicode(diff_after):
    text = diff_after("printf 'th\\351\\n' >latin; echo y >\"$(printf 'n\\351')\"")
    assert text == (
        part("latin", "--- a/latin", "+++ b/latin", "@@ -1 +1 @@", "-caf�", "+th�")
        + 'diff --git "a/n\\351" "b/n\\351"\n--- "a/n\\351"\n+++ "b/n\\351"\n@@ -1 +1 @@\n-x\n+y\n'
    )


def test_large_files_are_told_apart_but_not_shown(diff_after):
    assert diff_after("cp large l; cat l >large; rm l") == ""
    text = diff_after("printf 1 | dd of=large bs=1 seek=299999 conv=notrunc 2>/dev/null; head -c 400000 large >l")
    assert text == (
        part("l", "new file mode 100644", "# The content is not shown: 0 bytes before, 300000 after")
        + part("large", "# The content is not shown: 300000 bytes before, 300000 after")
    )


def test_a_change_that_keeps_size_and_time_is_told(diff_after):
    text = diff_after("touch -r same t; echo SAME >same; touch -r t same; rm t")
    assert text == part("same", "--- a/same", "+++ b/same", "@@ -1 +1 @@", "-same", "+SAME")


def test_too_many_files_are_counted(diff_after):
    text = diff_after("i=0; while [ $i -lt 1012 ]; do echo $i >f$i; i=$((i + 1)); done")
    assert text.count("diff --git") == 1000
    assert text.endswith("# 12 more files changed\n")


def test_files_that_nobody_may_read_and_what_is_no_file(diff_after):
    text = diff_after("echo new >own; chmod 0 own; echo h >hidden; chmod 0 hidden; mkfifo pipe")
    assert text == (
        added("hidden", "+h")
        + part("own", "--- a/own", "+++ b/own", "@@ -1 +1 @@", "-own", "+new")
        + "# b/pipe: neither a file nor a link, added\n"
    )


def test_links_to_files_of_this_machine_are_not_followed(diff_after, tmp_path):
    mark = uuid.uuid4().hex
    (tmp_path / "host").write_text(mark)
    text = diff_after(f"ln -s {tmp_path}/host link; rm -r keep; ln -s {tmp_path} keep; ln -sf {tmp_path}/host same")
    assert mark not in text
    assert f"+{tmp_path}/host\n" in text
    assert "b/keep/host" not in text


def test_a_working_directory_that_is_gone_has_lost_everything(docker_image, worked):
    async def scenario(sandbox, then):
        await sandbox.remember(WORK)
        assert (await run(sandbox, f"rm -rf {WORK}; {then}", working_directory="/")).exit_code == 0
        await sandbox.freeze()
        return await sandbox.diff()

    opener = lambda spec: open_container(spec.model_copy(update={"image": worked}))  # noqa: E731
    for then in ("true", f"mkdir {WORK}", f"ln -s /etc {WORK}"):
        text = use(opener, partial(scenario, then=then))
        assert text.count("deleted file mode") == text.count("diff --git") == 12


@pytest.mark.parametrize("prepared", [True, False])
def test_the_agent_that_is_not_root_changes_what_it_was_given(docker_image, worked, prepared):
    async def scenario(sandbox):
        await sandbox.hand_over()
        await sandbox.remember(WORK)
        assert (await run(sandbox, "id -u; echo mine >own; echo new >b")).stdout == b"65534\n"
        await sandbox.freeze()
        return await sandbox.diff()

    image = worked if prepared else docker_image
    text = use(lambda spec: open_container(spec.model_copy(update={"image": image})), scenario, user="nobody")
    assert text.startswith(added("b", "+new"))
    assert ("-own\n+mine\n" in text) == prepared


def test_files_copied_in_and_made_by_commands_are_what_the_agent_is_given(file_opener, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a").write_text("1\n")

    async def scenario(sandbox):
        await sandbox.copy_in(WORK, pack_folder(tmp_path / "given", "given"))
        await sandbox.write_file(f"{WORK}/made", b"made\n")
        await sandbox.remember(WORK)
        await sandbox.write_file(f"{WORK}/given/a", b"2\n")
        await sandbox.remove(f"{WORK}/made")
        return await sandbox.diff()

    assert use(file_opener, scenario) == (
        part("given/a", "--- a/given/a", "+++ b/given/a", "@@ -1 +1 @@", "-1", "+2")
        + part("made", "deleted file mode 100644", "--- a/made", "+++ /dev/null", "@@ -1 +0,0 @@", "-made")
    )


def test_what_was_not_remembered_is_not_known(file_opener):
    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/a", b"1\n")
        return await sandbox.diff()

    assert use(file_opener, scenario) is None


def test_a_folder_too_large_to_be_remembered_is_not_known(docker_image):
    async def scenario(sandbox):
        await done(sandbox, "head -c 300000000 /dev/zero >large")
        await sandbox.remember(WORK)
        return await sandbox.diff()

    assert use(open_container, scenario) is None


def test_a_sandbox_made_of_a_snapshot_is_compared_with_what_was_there_before_it(docker_image, worked):
    run_id = f"test-{uuid.uuid4().hex[:12]}"

    async def main():
        spec = make_spec(image=worked, labels={labels.RUN: run_id})
        async with open_engine() as engine:
            try:
                async with open_container(spec, engine=engine) as first:
                    await done(first, "echo first >new; rm -r keep; mkdir keep; echo x >same")
                    image, snapshot = first.image_digest, await first.snapshot()
                later = make_spec(image=worked, labels={labels.RUN: run_id})
                async with DockerSandbox.restore(later, snapshot.id, engine=engine) as second:
                    await second.remember(WORK, since=image)
                    await done(second, "echo second >>new; echo 1 >keep/one; echo same >same")
                    await second.freeze()
                    return await second.diff()
            finally:
                await snapshots.remove_all(engine, run_id=run_id, which=lambda found: True)

    assert asyncio.run(main()) == (
        part("keep/two", "deleted file mode 100644", "--- a/keep/two", "+++ /dev/null", "@@ -1 +0,0 @@", "-2")
        + added("new", "+first", "+second")
    )


def test_layers_are_looked_into_where_they_can_be(docker_image):
    if os.geteuid() != 0:
        pytest.skip("only root can look into the layers")
    run_id = f"test-{uuid.uuid4().hex[:12]}"

    async def scenario(_):
        client = connect()
        (container,) = client.containers(filters={"label": f"{labels.RUN}={run_id}"})
        found = client.inspect_container(container["Id"])
        client.close()
        assert overlay_of(found, WORK) is not None
        assert overlay_of(found | {"Mounts": [{"Destination": "/workspace/data"}]}, WORK) is None
        assert overlay_of(found | {"GraphDriver": {"Name": "overlayfs", "Data": None}}, WORK) is None

    use(open_container, scenario, labels={labels.RUN: run_id})


def test_a_link_that_takes_the_place_of_a_folder_of_a_layer_leads_nowhere(tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "a").write_text("secret")
    for layer in ("upper/w", "lower/w/d"):
        (tmp_path / layer).mkdir(parents=True)
    (tmp_path / "lower/w/d/a").write_text("public")
    (tmp_path / "upper/w/d").symlink_to(tmp_path / "host")
    above, before = (str(tmp_path / name) for name in ("upper", "lower"))
    (deleted, link) = sorted(Overlay((above,), (before,), "/w").changes(), key=lambda change: change.after is not None)
    assert (deleted.path, deleted.before.content, deleted.after) == ("d/a", b"public", None)
    assert link.after.content == str(tmp_path / "host").encode()
    assert Overlay((above,), (before,), "/w/d").is_untouched() is False
    assert [change.after for change in Overlay((above,), (before,), "/w/d").changes()] == [None]
    (Path(above) / "w").rename(Path(above) / "v")
    (Path(above) / "w").symlink_to("v")
    assert [change.after for change in Overlay((above,), (before,), "/w").changes()] == [None]
