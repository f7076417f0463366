"""Fixtures shared by all tests."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from realwork.sandbox.engine import connect, engine_problem
from tests.e2e.cluster import joined, ray_head
from tests.private_engine import PrivateEngine

BASE_IMAGE = "realwork/base:bookworm"


@pytest.fixture(scope="session")
def docker_image() -> str:
    """The project's base image on an engine that answers; skips without, unless REALWORK_REQUIRE_DOCKER=1."""
    problem = engine_problem()
    if problem is None:
        client = connect()
        if not client.images(BASE_IMAGE):
            problem = f"The image {BASE_IMAGE} is missing: run cluster/setup.sh (or make setup)"
        client.close()
    if problem is not None and os.environ.get("REALWORK_REQUIRE_DOCKER") == "1":
        pytest.fail(problem)
    if problem is not None:
        pytest.skip(problem)
    return BASE_IMAGE


@pytest.fixture(scope="session")
def private_engine(docker_image, tmp_path_factory):
    """An engine that may be stopped and killed, with the base image; skips where this user cannot start one."""
    problem = None if os.geteuid() == 0 else "only root can start an engine"
    if problem is None and shutil.which("dockerd") is None:
        problem = "there is no dockerd on this machine"
    if problem is not None and os.environ.get("REALWORK_REQUIRE_DOCKER") == "1":
        pytest.fail(problem)
    if problem is not None:
        pytest.skip(problem)
    engine = PrivateEngine(tmp_path_factory.mktemp("engine"))
    try:
        engine.start()
        engine.load(docker_image)
        yield engine
    finally:
        engine.end()


SHARED_RAY = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """The processes among which tests are divided share one Ray."""
    config = node.config
    if SHARED_RAY not in config.stash:
        opened = ExitStack()
        config.add_cleanup(opened.close)
        folder = opened.enter_context(TemporaryDirectory(prefix="realwork-ray-"))
        config.stash[SHARED_RAY] = opened.enter_context(ray_head(Path(folder))).address
    node.workerinput["ray_address"] = config.stash[SHARED_RAY]


@pytest.fixture(scope="session")
def ray_address(request, tmp_path_factory):
    """A Ray of this machine that runs may join."""
    shared = getattr(request.config, "workerinput", {}).get("ray_address")
    if shared is not None:
        yield shared
        return
    with ray_head(tmp_path_factory.mktemp("ray")) as head:
        yield head.address


@pytest.fixture
def on_cluster(ray_address):
    """What the test runs joins a Ray that is there, which is quicker than to start one."""
    with joined(ray_address):
        yield


LONG = (
    "invariants",
    "e2e",
    "web",
    "tiny",
    "abuse",
    "test_readme.py",
    "test_channel.py",
    "test_reaper.py",
    "test_on_ray.py",
)


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that no worker is left alone with it in the end."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: min((order[part] for part in item.path.parts if part in order), default=len(LONG)))
