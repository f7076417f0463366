"""The implementations that the contract suite runs over."""

from functools import partial

import pytest

from realwork.sandbox.docker import open_container
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import open_memory


@pytest.fixture(params=["channel", "exec", "local"])
def opener(request):
    if request.param == "local":
        return open_local
    request.getfixturevalue("docker_image")
    return partial(open_container, with_channel=request.param == "channel")


@pytest.fixture(params=["channel", "exec", "local", "memory"])
def file_opener(request):
    if request.param == "memory":
        return lambda spec: open_memory()
    if request.param == "local":
        return open_local
    request.getfixturevalue("docker_image")
    return partial(open_container, with_channel=request.param == "channel")
