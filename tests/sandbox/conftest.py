"""The implementations that the contract suite runs over, and the images of the containers among them."""

import os
import shutil
import subprocess
import uuid
from functools import partial

import pytest

from realwork.sandbox.docker import open_container
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import open_memory
from realwork.sandbox.prepared import Recipe
from tests.private_engine import PrivateEngine

from .engines import remove_all
from .helpers import WORK
from .images import bare_image, bash_image, busybox_image, temporary_image


@pytest.fixture(scope="session")
def bash(docker_image):
    with temporary_image(bash_image) as name:
        yield name


@pytest.fixture(scope="session")
def bare(docker_image):
    with temporary_image(bare_image) as name:
        yield name


@pytest.fixture(scope="session")
def busybox(docker_image):
    """Skips where there is neither busybox nor apt-get, unless REALWORK_REQUIRE_DOCKER=1."""
    if not (shutil.which("busybox") or shutil.which("apt-get") or os.environ.get("REALWORK_REQUIRE_DOCKER") == "1"):
        pytest.skip("there is neither busybox nor apt-get on this machine")
    with temporary_image(busybox_image) as name:
        yield name


def opening(request):
    """What opens the implementation that `request` names: `local`, `memory`, or IMAGE `-channel` or `-exec`."""
    if request.param == "memory":
        return lambda spec: open_memory()
    if request.param == "local":
        return open_local
    image, _, way = request.param.rpartition("-")
    name = request.getfixturevalue({"debian": "docker_image"}.get(image, image))
    plain = partial(open_container, with_channel=way == "channel")
    return lambda spec: plain(spec.model_copy(update={"image": name}))


CONTAINERS = ["debian-channel", "debian-exec", "busybox-channel", "busybox-exec"]


@pytest.fixture(params=[*CONTAINERS, "local"])
def opener(request):
    return opening(request)


@pytest.fixture(params=[*CONTAINERS, "local", "memory"])
def file_opener(request):
    return opening(request)


@pytest.fixture(params=CONTAINERS)
def docker_opener(request):
    return opening(request)


@pytest.fixture(scope="session")
def receiver(private_engine, tmp_path_factory):
    """A second engine, on a small disk of its own."""
    folder = tmp_path_factory.mktemp("receiver")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "receiver", folder], check=True)
    engine = PrivateEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.end()
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def sender(private_engine, busybox):
    """An engine with a tiny image, of which prepared ones are made."""
    private_engine.load(busybox)
    yield private_engine
    with private_engine.client() as client:
        remove_all(client, keep="realwork/base")


@pytest.fixture
def target(receiver, busybox):
    """The second engine, which has the tiny image and nothing else."""
    receiver.load(busybox)
    yield receiver
    with receiver.client() as client:
        remove_all(client)
    assert receiver.containers() == []


@pytest.fixture
def recipe(sender, busybox):
    """A recipe that no other test has."""
    with sender.client() as client:
        base_id = client.inspect_image(busybox)["Id"]
    return Recipe(
        base_id=base_id,
        folders=(),
        init_commands=(uuid.uuid4().hex,),
        init_network="none",
        environment_variables={},
        working_directory=WORK,
    )
