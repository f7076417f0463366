"""The implementations that the contract suite runs over, and the images of the containers among them."""

import os
import shutil
from functools import partial

import pytest

from realwork.sandbox.docker import open_container
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import open_memory

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
