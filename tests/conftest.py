"""Fixtures shared by all tests."""

import os
import shutil

import pytest

from realwork.sandbox.engine import connect, engine_problem
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
