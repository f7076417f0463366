"""Folders as archives, output in bounded memory, and the local sandbox's own borders."""

import asyncio
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from realwork.errors import FileError, InputError
from realwork.sandbox.capture import Capture
from realwork.sandbox.files import pack_folder
from realwork.sandbox.folders import unpack
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import MemorySandbox

from .helpers import run, use
from .owners import wait_until


def test_the_same_folder_gives_the_same_bytes_whenever_it_was_written(tmp_path):
    for name, time in (("a", 1_000_000_000), ("b", 1_700_000_000)):
        for child in ("x", "y", "z") if name == "a" else ("z", "x", "y"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / child).write_text(child)
            os.utime(tmp_path / name / child, (time, time))
    assert pack_folder(tmp_path / "a", "kit") == pack_folder(tmp_path / "b", "kit")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_not_a_file_a_folder_or_a_link_is_refused_by_name(tmp_path, kind):
    odd = tmp_path / "sub" / "odd"
    odd.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "device" and os.getuid() != 0:
        pytest.skip("only root makes devices")
    elif kind == "device":
        os.mknod(odd, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind(str(odd))
        with pytest.raises(InputError) as caught:
            pack_folder(tmp_path, "kit")
    assert caught.value.problems == (
        f"{odd} is neither a file, a folder nor a link, and cannot be copied into a sandbox",
    )


def test_everything_that_cannot_be_packed_is_named_at_once(tmp_path):
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub" / "pipe")
    (tmp_path / "out").symlink_to("../../elsewhere")
    with pytest.raises(InputError) as caught:
        pack_folder(tmp_path, "kit")
    assert [problem.partition(" is ")[0] for problem in caught.value.problems] == [
        str(tmp_path / "out"),
        str(tmp_path / "sub" / "pipe"),
    ]


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    if os.getuid() == 0:
        pytest.skip("root may read every file")
    with pytest.raises(InputError, match="secret"):
        pack_folder(tmp_path, "kit")


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="nothing is not a folder"):
        pack_folder(tmp_path / "nothing", "kit")


@pytest.mark.parametrize("name", ["../out", "link/out", "/tmp/realwork-out", "..", "a/../../out"])
def test_an_archive_never_leads_out_of_its_directory(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("..")
    with (tmp_path / "bad.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(FileError):
        unpack((tmp_path / "bad.tar").read_bytes(), tmp_path / "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 64, 1000])
@pytest.mark.parametrize("piece", [1, 3, 50, 1000])
def test_a_capture_keeps_head_and_tail_however_the_bytes_come(limit, piece):
    data = bytes(range(1, 256)) * 4
    capture = Capture(limit)
    for at in range(0, len(data), piece):
        capture.feed(data[at : at + piece])
    head, tail = limit - limit // 2, limit // 2
    omitted = len(data) - head - tail
    marker = b"\n[... %d bytes omitted ...]\n" % omitted
    assert capture.total == len(data)
    assert capture.content() == data[:head] + marker + data[len(data) - tail :]


def test_a_capture_within_its_limit_is_whole():
    capture = Capture(10)
    capture.feed(b"01234")
    capture.feed(b"56789")
    assert capture.content() == b"0123456789"


@pytest.mark.parametrize("path", ["/etc/passwd", "/workspace/../etc/passwd", "/workspace/out/x", "/workspaces/x"])
def test_a_local_sandbox_has_no_paths_outside_of_its_folder(path):
    async def scenario(sandbox):
        await run(sandbox, "ln -s /etc out")
        for attempt in (sandbox.read_file(path), sandbox.write_file(path, b"x"), sandbox.remove(path)):
            with pytest.raises(FileError):
                await attempt

    use(open_local, scenario)


def test_a_local_sandbox_leaves_nothing_running_and_no_folder():
    async def scenario(sandbox):
        result = await run(sandbox, "setsid sleep 300 >/dev/null 2>&1 & echo $! $HOME")
        return result.stdout.decode().split()

    pid, home = use(open_local, scenario)
    assert not Path(home).exists()

    def is_gone():
        try:
            return " Z " in Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True

    wait_until(is_gone, 5, "the end of what was killed")


def test_a_memory_sandbox_answers_as_it_was_told():
    sandbox = MemorySandbox({"boom": FileError("as told")})
    assert asyncio.run(run(sandbox, "what")).exit_code == 127
    with pytest.raises(FileError, match="as told"):
        asyncio.run(run(sandbox, "boom"))
    assert sandbox.commands == ["what", "boom"]
