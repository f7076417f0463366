"""Images for tests, made on the engine without a registry: bash as `/bin/sh`, busybox alone, a bare shell."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from realwork.sandbox.engine import EngineClient, connect

from .helpers import IMAGE

BARE = """
mkdir -p /bare/bin /bare/dev /bare/proc /bare/sys
cp /bin/dash /bare/bin/sh
cp /bin/sleep /bare/bin/sleep
for library in $(ldd /bin/dash /bin/sleep | grep -o '/lib[^ )]*'); do
    mkdir -p "/bare${library%/*}"
    cp -L "$library" "/bare$library"
done
"""
"""A shell, `sleep`, the libraries that they need, and nothing else."""


@contextmanager
def temporary_image(make: Callable[[EngineClient, str], None]) -> Iterator[str]:
    """The name of an image made by `make`, for the length of the block."""
    client, name = connect(), f"realwork-test-{uuid.uuid4().hex[:12]}"
    try:
        make(client, name)
        yield name
        client.remove_image(name, force=True)
    finally:
        client.close()


def bash_image(client: EngineClient, name: str) -> None:
    """The base image with bash as its `/bin/sh`."""
    with _after(client, "ln -sf bash /bin/sh") as container_id:
        client.commit(container_id, name)


def bare_image(client: EngineClient, name: str) -> None:
    """Nothing but dash as `/bin/sh`, and `sleep`."""
    with _after(client, BARE) as container_id:
        chunks, _ = client.get_archive(container_id, "/bare/.")
        client.import_image_from_data(b"".join(chunks), repository=name)


def busybox_image(client: EngineClient, name: str) -> None:
    """Nothing but Debian's static busybox with its links."""
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=archive, mode="w") as tar:
        busybox = _busybox(Path(folder))
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        tar.add(busybox, "bin/busybox")
        for applet in set(applets) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    client.import_image_from_data(archive.getvalue(), repository=name)


def _busybox(folder: Path) -> Path:
    """A static busybox: this machine's, else the one of the Debian package, unpacked in `folder`."""
    found = shutil.which("busybox")
    if found is not None and b"ld-linux" not in Path(found).read_bytes()[:4096]:
        return Path(found)
    folder.chmod(0o755)
    get = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "busybox-static"]
    got = subprocess.run(get, cwd=folder, capture_output=True, text=True, check=False)
    if got.returncode != 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        got = subprocess.run(get, cwd=folder, capture_output=True, text=True, check=False)
    assert got.returncode == 0, f"no static busybox: install the package busybox-static ({got.stderr.strip()})"
    package = next(folder.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked" / "bin" / "busybox"


def image_after(script: str) -> Callable[[EngineClient, str], None]:
    """Makes the base image with what `script` does in it."""

    def make(client: EngineClient, name: str) -> None:
        with _after(client, script) as container_id:
            client.commit(container_id, name)

    return make


@contextmanager
def _after(client: EngineClient, script: str) -> Iterator[str]:
    """The id of a stopped container of the base image in which `script` has run."""
    offline = client.create_host_config(network_mode="none")
    container_id = client.create_container(IMAGE, ["/bin/sh", "-c", script], host_config=offline)["Id"]
    try:
        client.start(container_id)
        assert client.wait(container_id)["StatusCode"] == 0
        yield container_id
    finally:
        client.remove_container(container_id, force=True)
