"""The exports for verl and SkyRL: the columns that they read, and which rollouts are rows."""

import pyarrow.parquet as pq
import pytest

from realwork.analysis.export.formats import export
from realwork.errors import InputError
from tests.dataset.records import failed, graded, rich

from .records import make_run

PROMPT = [{"role": "system", "content": "You work."}, {"role": "user", "content": "Fix it — bitte, 修理"}]
ORIGIN = {
    "split": "train",
    "index": 0,
    "trajectory_id": "r1:calc:0:0",
    "group_id": "r1:calc:0",
    "environment_id": "calc",
    "sample_index": 0,
    "reward": 0.5,
    "success": False,
    "model": "policy",
}


def rows(directory, name, records):
    """The rows of the export, and what is said of it."""
    make_run(directory / "run", records)
    said = export(directory / "run", name, directory / "out.parquet")
    found = pq.read_table(directory / "out.parquet").to_pylist()
    assert len(found) == said.written
    assert [path.name for path in directory.iterdir() if path.name != "run"] == ["out.parquet"]
    return found, said.left_out


def test_a_row_for_verl_has_the_columns_of_its_dataset_with_nested_arguments_for_tools(tmp_path):
    (row,), _ = rows(tmp_path, "verl", [rich()])
    create = {"create_kwargs": {"environment_id": "calc", "environment": '{"id": "calc"}'}}
    assert row == {
        "data_source": "realwork",
        "prompt": PROMPT,
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": '["check 0", "check 1"]'},
        "extra_info": ORIGIN
        | {
            "need_tools_kwargs": True,
            "tools_kwargs": dict.fromkeys(["execute_command", "write_file", "read_file", "mark_done"], create),
        },
    }


def test_a_row_for_skyrl_has_the_columns_of_its_dataset(tmp_path):
    (row,), _ = rows(tmp_path, "skyrl", [rich()])
    assert row == {
        "data_source": "realwork",
        "prompt": PROMPT,
        "env_class": "realwork",
        "reward_spec": {"method": "rule", "ground_truth": '["check 0", "check 1"]'},
        "extra_info": ORIGIN | {"environment": '{"id": "calc"}', "tools": '[{"type": "function"}]'},
    }


@pytest.mark.parametrize("name", ["verl", "skyrl"])
def test_a_row_is_a_graded_rollout_and_rows_are_numbered(tmp_path, name):
    records = [failed(0), rich(0, attempt=1), failed(1), graded(2), *(rich(sample) for sample in range(3, 9))]
    found, left_out = rows(tmp_path, name, records)
    assert [row["extra_info"]["sample_index"] for row in found] == [0, *range(3, 9)]
    assert [row["extra_info"]["index"] for row in found] == list(range(7))
    assert all(row["extra_info"]["reward"] == 0.5 for row in found)
    assert left_out == {
        "earlier attempts of a rollout": 1,
        "rollouts without a grade": 1,
        "rollouts without a prompt": 1,
    }


@pytest.mark.parametrize("name", ["verl", "skyrl"])
@pytest.mark.parametrize(
    ("records", "why"),
    [([], "no rows yet"), ([failed(0, messages=rich().messages)], "has a grade"), ([graded(0)], "has a prompt")],
)
def test_where_there_is_nothing_to_export_there_is_a_sentence_and_no_file(tmp_path, name, records, why):
    make_run(tmp_path / "run", records)
    with pytest.raises(InputError, match=why):
        export(tmp_path / "run", name, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
