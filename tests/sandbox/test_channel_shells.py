"""The channel under every shell that an image may have as its `/bin/sh`."""

import io
import shutil
import tarfile
import uuid
from pathlib import Path

import pytest

from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect

from .helpers import IMAGE, WORK, run, use


def bash_image(client, name):
    made = client.create_container(IMAGE, ["ln", "-sf", "bash", "/bin/sh"])
    try:
        client.start(made["Id"])
        client.wait(made["Id"])
        client.commit(made["Id"], name)
    finally:
        client.remove_container(made["Id"], force=True)


def busybox_image(client, name):
    found = shutil.which("busybox")
    if found is None or b"ld-" in Path(found).read_bytes()[:1024]:
        pytest.skip("there is no static busybox on this machine (Debian: busybox-static)")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(found, "bin/busybox")
        for applet in ("sh", "mkdir", "cat", "head", "stat", "rm", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    client.import_image_from_data(archive.getvalue(), repository=name)


@pytest.fixture(scope="module", params=["dash", "bash", "busybox"])
def image(request, docker_image):
    if request.param == "dash":
        yield docker_image
        return
    client = connect()
    name = f"realwork-test-{uuid.uuid4().hex[:12]}"
    try:
        (bash_image if request.param == "bash" else busybox_image)(client, name)
        yield name
        client.remove_image(name)
    finally:
        client.close()


def test_every_shell_keeps_the_contract(image):
    content = bytes(range(256)) * 20

    async def scenario(sandbox):
        await run(sandbox, "true")
        shell = sandbox._channel._shell
        assert shell is not None
        out = await run(sandbox, "printf 'a\\000b'; printf 'e\\000f' >&2; cat; exit 3")
        killed = await run(sandbox, "kill -9 $$")
        held = await run(sandbox, "sleep 0.4 && echo late & echo now")
        mine = await run(sandbox, "sleep 0.8; cd /; export X=1; echo mine")
        cut = await run(sandbox, "trap '' TERM; echo on; while :; do sleep 0.1; done", timeout_s=0.5)
        nowhere = await run(sandbox, "echo never", working_directory=f"{WORK}/nope")
        await sandbox.write_file(f"{WORK}/a 'b/-c\n", content)
        found = await sandbox.read_file(f"{WORK}/a 'b/-c\n")
        answers = [await run(sandbox, "kill -USR1 $PPID; echo ${X-unset}") for _ in range(2)]
        assert sandbox._channel._damages == 0
        return out, killed, held, mine, cut, nowhere, found, answers

    out, killed, held, mine, cut, nowhere, found, answers = use(open_container, scenario, image=image)
    assert (out.exit_code, out.stdout, out.stderr) == (3, b"a\0b", b"e\0f")
    assert (killed.exit_code, killed.stderr) == (137, b"")
    assert (held.stdout, mine.stdout) == (b"now\n", b"mine\n")
    assert (cut.timed_out, cut.stdout) == (True, b"on\n")
    assert (nowhere.exit_code, nowhere.stdout, b"nope" in nowhere.stderr) == (nowhere.exit_code or 1, b"", True)
    assert found.content == content
    assert [answer.stdout for answer in answers] == [b"unset\n"] * 2
