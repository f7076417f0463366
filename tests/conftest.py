"""Fixtures shared by all tests."""

import os

import pytest

from realwork.sandbox.engine import connect, engine_problem

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
