"""Other tools read the parts as they are, without realwork, while the store writes more of them."""

import asyncio
import json
import subprocess
import sys

import pytest

from realwork.dataset.commits import make_commit
from realwork.dataset.run_directory import open_run
from realwork.dataset.store import TrajectoryStore
from tests.e2e.command import clean_environment

from .records import failed, rich

HOSTILE = "a\udc80b \0 \x1b[31mred"

PANDAS = """
import pandas
rows = pandas.read_parquet(directory + "/trajectories").to_dict("records")
"""
POLARS = """
import polars
rows = polars.read_parquet(directory + "/trajectories/part-*.parquet").to_dicts()
polars.read_parquet(directory + "/trajectories").unnest("timing")
"""
DUCKDB = """
import duckdb
rows = duckdb.sql(f"from '{directory}/trajectories/part-*.parquet'").to_arrow_table().to_pylist()
duckdb.sql(f"select s.tool_results[1].output from '{directory}/trajectories/*.parquet', unnest(steps) t(s)").fetchall()
"""
HUGGING_FACE = """
import datasets
rows = datasets.load_dataset(directory, "trajectories", split="train").to_list()
segments = datasets.load_dataset(directory, "samples", split="train").to_list()
assert [sum(row["completion_mask"]) for row in segments] == [2], segments
"""
RAY_DATA = """
import warnings
warnings.simplefilter("default")  # it warns of itself
import ray, ray.data
ray.init(runtime_env={"env_vars": {"PYTHONPATH": ""}}, log_to_driver=False)
rows = ray.data.read_parquet(directory + "/trajectories").take_all()
"""
SUMMARY = """
import json, sys
assert "realwork" not in sys.modules
graded = next(row for row in rows if row["success"] is not None)
ungraded = next(row for row in rows if row["success"] is None)
print(json.dumps({
    "rows": len(rows),
    "roles": [message["role"] for message in graded["messages"]],
    "tools": [call["function"]["name"] for call in graded["messages"][2]["tool_calls"]],
    "codes": [result["exit_code"] for result in graded["steps"][0]["tool_results"]],
    "output": graded["steps"][0]["tool_results"][1]["output"],
    "tests": [[test["test_command"], test["test_exit_code"]] for test in graded["test_results"]],
    "reward": graded["reward"],
    "no reward": [ungraded["reward_valid"] == False, ungraded["reward"] != ungraded["reward"] or ungraded["reward"] is None],
    "started": graded["started_at"].isoformat(),
}, default=lambda value: value.item()))
"""  # noqa: E501


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run whose store is at work: two rows stand in parts, one in the ledger, and a part is half written."""
    directory = tmp_path_factory.mktemp("run")
    open_run(directory, "{}")

    async def opened():
        store = TrajectoryStore(directory)
        for record in [failed(1), rich(0, output=HOSTILE)]:
            await store.commit(make_commit(record))
            await store.seal()
        await store.commit(make_commit(rich(2)))
        return store

    with asyncio.Runner() as runner:
        store = runner.run(opened())
        (directory / ".part-000003.parquet.tmp").write_bytes(b"PAR1")
        yield directory
        runner.run(store.close())


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize(
    "reading",
    [PANDAS, POLARS, DUCKDB, HUGGING_FACE, RAY_DATA],
    ids=["pandas", "polars", "duckdb", "datasets", "Ray Data"],
)
def test_a_reader_gets_messages_steps_and_tests(directory, reading, tmp_path):
    script = f"directory = {str(directory)!r}\n{reading}\n{SUMMARY}"
    environment = clean_environment(HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("started").startswith("2026-01-02T03:04:05.678901")
    assert seen == {
        "rows": 2,
        "roles": ["system", "user", "assistant", "tool", "tool", "assistant"],
        "tools": ["write_file", "execute_command"],
        "codes": [None, 3],
        "output": "a\ufffdb \0 \x1b[31mred",
        "tests": [["check 0", 0], ["check 1", 1], ["check 1", None]],
        "reward": 0.5,
        "no reward": [True, True],
    }
