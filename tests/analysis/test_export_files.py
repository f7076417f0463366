"""The command, the places a file may stand in, every row as a line, and memory that does not grow with the run."""

import json
import subprocess
import sys
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from realwork.analysis.export.formats import FORMATS, export
from realwork.cli.app import app
from realwork.cli.export import FormatName
from realwork.dataset.encoding import table
from realwork.dataset.parts import part_files, part_name, write
from realwork.dataset.schema import SCHEMA
from realwork.errors import InputError, StoreError
from realwork.types import Step, StepTokens
from tests.dataset.records import BEGAN, failed, graded, rich
from tests.e2e.command import REALWORK, clean_environment

from .records import make_run

SUFFIX = {"JSON": ".json", "JSONL": ".jsonl", "Parquet": ".parquet"}


def pair():
    """Two rollouts of a group with different rewards."""
    return [rich(0, reward=1.0, success=True), rich(1, reward=0.0, success=False)]


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_writes_every_format_and_says_how_much(tmp_path, name):
    make_run(tmp_path / "run", [*pair(), failed(2, messages=rich().messages)])
    file = tmp_path / "new folder" / f"out{SUFFIX[FORMATS[name].kind]}"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--to", name, "--output", str(file)])
    assert done.exit_code == 0, done.output
    first, *others = done.output.splitlines()
    written = {"trl-dpo": "1 pair", "seed-json": "3 rollouts", "atif": "3 rollouts", "jsonl": "3 rows"}
    assert first == f"{written.get(name, '2 rollouts')} written to {file} ({FORMATS[name].kind})"
    assert others == ([] if name in ("seed-json", "atif", "jsonl") else ["left out: rollouts without a grade (1)"])
    assert file.stat().st_size > 0


def test_a_mistake_on_the_command_line_is_a_sentence_and_exit_code_2(tmp_path):
    make_run(tmp_path / "run", [failed(0)])
    command = [REALWORK, "export", "run", "--to", "trl-dpo", "--output", "out.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: No rollout in run has a grade")
    assert "Traceback" not in done.stderr


def test_the_command_knows_the_formats_that_there_are():
    assert get_args(FormatName) == tuple(FORMATS)
    shown = CliRunner().invoke(app, ["export", "--help"]).output
    for name, each in FORMATS.items():
        assert f"{name}: {each.kind}" in shown


def test_a_file_of_the_wrong_kind_is_refused(tmp_path):
    make_run(tmp_path / "run", pair())
    with pytest.raises(InputError, match=r"verl is Parquet.*End it in \.parquet"):
        export(tmp_path / "run", "verl", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="trl-sft is JSONL"):
        export(tmp_path / "run", "trl-sft", tmp_path / "out.parquet")
    assert export(tmp_path / "run", "trl-sft", tmp_path / "out.json").written == 2
    assert export(tmp_path / "run", "trl-sft", tmp_path / "out").written == 2


def test_the_files_of_a_run_are_left_alone(tmp_path):
    make_run(tmp_path / "runs" / "r1", pair())
    for name, place in [("jsonl", "run.json"), ("verl", "trajectories/part-000001.parquet")]:
        with pytest.raises(InputError, match="among the files of the run"):
            export(tmp_path / "runs", name, tmp_path / "runs" / "r1" / place)
    assert (tmp_path / "runs" / "r1" / "run.json").read_text() == "{}"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_run_no_file_or_no_format_is_a_sentence(tmp_path, name):
    with pytest.raises(InputError, match="holds no run"):
        export(tmp_path, name, tmp_path / "out")
    make_run(tmp_path / "run", pair())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        export(tmp_path / "run", name, tmp_path / "folder")
    with pytest.raises(InputError, match="There is no format 'csv'"):
        export(tmp_path / "run", "csv", tmp_path / "out")
    with pytest.raises(StoreError, match="could not be written"):
        export(tmp_path / "run", name, tmp_path / "folder" / ("n" * 300))


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_that_cannot_be_read_leaves_the_file_that_was_there(tmp_path, name):
    make_run(tmp_path / "run", pair())
    (tmp_path / "run" / "trajectories" / "part-000099.parquet").write_bytes(b"PAR1 cut off")
    (tmp_path / "out").write_text("older")
    with pytest.raises(StoreError, match="cannot be read"):
        export(tmp_path / "run", name, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    assert (tmp_path / "out").read_text() == "older"


def test_a_line_of_jsonl_has_every_column_of_every_attempt(tmp_path):
    tokens = StepTokens(prefix_len=0, prompt=(1,), completion=(2, 3), logprobs=(float("-inf"), -0.5))
    unlikely = graded(2, steps=(Step(index=0, message_index=0, started_at=BEGAN, tokens=tokens),))
    make_run(tmp_path / "run", [failed(0), rich(0, attempt=1), unlikely])
    assert export(tmp_path / "run", "jsonl", tmp_path / "out.jsonl").left_out == {}
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [SCHEMA.names] * 3
    assert [(line["attempt"], line["reward"], line["reward_valid"]) for line in lines] == [
        (0, None, False),
        (1, 0.5, True),
        (0, 1.0, True),
    ]
    assert lines[1]["started_at"] == "2026-01-02T03:04:05.678901+00:00"
    assert lines[1]["steps"][0]["state_snapshot"]["snapshot_taken_at"] == "2026-01-02T03:04:09.678901+00:00"
    assert lines[1]["environment"] == '{"id": "calc"}'
    assert lines[2]["steps"][0]["completion_logprobs"] == [None, -0.5]
    stored = pa.concat_tables(pq.read_table(part) for part in part_files(tmp_path / "run")).to_pylist()
    assert [line["messages"] for line in lines] == [row["messages"] for row in stored]


ROLLOUTS = 200
PARTS = 8
STREAMS = ("trl-dpo", "verl", "jsonl")
"""One of each way in which an export reads and writes."""
EXPORT = """
import resource, sys
from pathlib import Path
from realwork.analysis.export.formats import export
written = [export(Path(sys.argv[1]), name, Path(sys.argv[2]) / name).written for name in sys.argv[3:]]
print(*written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def long_run(directory, parts):
    """A run of many groups, of which the best rollouts all stand in the first parts and the worst in the last."""
    made = table(rich(sample, output=f"{sample} " * 6000) for sample in range(ROLLOUTS))
    (directory / "trajectories").mkdir(parents=True)
    for part in range(parts):
        columns = {
            "sample_index": pa.array([part] * ROLLOUTS, pa.int32()),
            "reward": pa.array([1.0 - part / parts] * ROLLOUTS),
            "environment_id": pc.binary_join_element_wise("calc", made["sample_index"].cast(pa.string()), ""),
        }
        columns["group_id"] = pc.binary_join_element_wise("r1", columns["environment_id"], ":")
        columns["trajectory_id"] = pc.binary_join_element_wise(columns["group_id"], str(part), "0", ":")
        rows = made
        for name, column in columns.items():
            rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
        with (directory / "trajectories" / part_name(part)).open("wb") as file:
            write(file, ((batch, batch.nbytes) for batch in rows.to_batches()))


def test_memory_does_not_grow_with_the_run(tmp_path):
    peaks = {}
    for parts in (2, PARTS):
        long_run(tmp_path / f"{parts}", parts)
        command = [sys.executable, "-c", EXPORT, tmp_path / f"{parts}", tmp_path, *STREAMS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *written, peaks[parts] = map(int, done.stdout.split())
        assert written == [ROLLOUTS if name == "trl-dpo" else ROLLOUTS * parts for name in STREAMS]
    size_mib = sum(path.stat().st_size for path in tmp_path.glob("[a-z]*")) >> 20
    assert size_mib > 70
    assert peaks[PARTS] - peaks[2] < 40
