"""What files do in every sandbox, whatever it is made of."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from realwork.errors import FileError
from realwork.sandbox.files import pack_folder
from realwork.sandbox.memory import MemorySandbox

from .helpers import WORK, run, use


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


def test_a_folder_copied_in_is_whole(opener, tmp_path):
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "private").write_text("x")
    (tmp_path / "private").chmod(0o640)
    (tmp_path / "same").hardlink_to(tmp_path / "private")
    (tmp_path / "dangling").symlink_to("/nowhere")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "ein Name\nmit Ümläuten").write_text("")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/not-utf8-\xff")).write_text("")
    archive = pack_folder(tmp_path, "kit")

    async def scenario(sandbox):
        await sandbox.copy_in(WORK, archive)
        return await run(sandbox, "cd kit; stat -c '%a %h %F' empty private same; readlink dangling; find . | wc -c")

    said = use(opener, scenario).stdout.decode().splitlines()
    assert said[:3] == ["700 2 directory", "640 2 regular file", "640 2 regular file"]
    assert said[3] == "/nowhere"
    names = subprocess.run(["find", "."], cwd=tmp_path, capture_output=True, check=True).stdout
    assert int(said[4]) == len(names)


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
