"""A container ends at its deadline whatever becomes of those who would remove it and whatever is done inside (I4)."""

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.command import realwork
from tests.sandbox.helpers import make_spec
from tests.sandbox.owners import GONE_S, kill_without_a_reaper, owner, wait_until


@pytest.fixture
def engine(private_engine):
    return private_engine


def test_without_a_reaper_a_container_ends_by_itself_at_its_deadline_and_gc_removes_it(engine):
    spec = make_spec(deadline_s=12.0)
    with owner(engine, spec) as killed, engine.client() as client:
        kill_without_a_reaper(engine, killed)
        state = lambda: client.inspect_container(spec.name)["State"]  # noqa: E731
        assert state()["Running"]
        wait_until(lambda: not state()["Running"], 20, "the end of the container")
        began, ended = (datetime.fromisoformat(state()[name]) for name in ("StartedAt", "FinishedAt"))
        assert 11 < (ended - began).total_seconds() < 16
        assert realwork("gc", cwd=Path("/"), DOCKER_HOST=engine.url).returncode == 0
    assert spec.name not in engine.containers()


def test_whatever_is_done_to_its_processes_a_container_is_gone_soon_after_its_deadline(engine):
    hostile = ("pkill -STOP sleep", "kill -9 1; kill -TERM 1", "kill -STOP 1", "kill -9 -1", "pkill -STOP .")
    specs = {command: make_spec(deadline_s=8.0) for command in hostile}
    with ExitStack() as stack:
        for command, spec in specs.items():
            stack.enter_context(owner(engine, spec, command))
        assert specs["kill -9 -1"].name in engine.containers()
        ours = {spec.name for spec in specs.values()}
        wait_until(lambda: not ours & set(engine.containers()), 8 + GONE_S, "the end of the containers")
