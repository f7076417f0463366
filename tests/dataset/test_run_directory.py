"""A directory belongs to one run file, and tells readers what is in it."""

import json

import pytest
import yaml

from realwork.dataset.run_directory import held, open_run
from realwork.errors import InputError, InUse

RUN = {"llm_config": {"model": "a", "temperature": 0.7}, "environments": [{"id": "x", "prompt": "p"}]}


def test_a_new_directory_gets_its_run_file_and_card(tmp_path):
    open_run(tmp_path / "out" / "r1", json.dumps(RUN))
    assert json.loads((tmp_path / "out" / "r1" / "run.json").read_text()) == RUN
    header = (tmp_path / "out" / "r1" / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(header)["configs"] == [
        {"config_name": "trajectories", "data_files": "trajectories/part-*.parquet", "default": True}
    ]


def test_the_same_run_file_is_welcome_again_and_replaces_nothing(tmp_path):
    open_run(tmp_path, json.dumps(RUN, indent=2))
    before = (tmp_path / "run.json").read_bytes()
    open_run(tmp_path, json.dumps(RUN))
    assert (tmp_path / "run.json").read_bytes() == before


def test_another_run_file_is_refused_with_the_differences(tmp_path):
    open_run(tmp_path, json.dumps(RUN))
    other = {
        "llm_config": {"model": "b", "temperature": 0.7},
        "environments": [{"id": "x", "prompt": "q"}],
        "plugins": [],
    }
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, json.dumps(other))
    assert caught.value.problems == (
        'llm_config.model: "a" in run.json, "b" in this run',
        'environments[0].prompt: "p" in run.json, "q" in this run',
        "plugins: null in run.json, [] in this run",
    )


def test_a_directory_that_cannot_be_made_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="trajectory_output_path"):
        open_run(tmp_path / "file" / "r1", "{}")


def test_a_run_file_that_is_broken_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_run(tmp_path, "{}")


def test_a_directory_belongs_to_one_process_and_is_gone_if_nothing_was_written(tmp_path):
    run = tmp_path / "out" / "r"
    with held(run), pytest.raises(InUse, match=r"is being played by process \d+ on .* since"), held(run):
        pass
    assert not (tmp_path / "out").exists()
    with held(run):
        open_run(run, "{}")
    assert sorted(path.name for path in run.iterdir()) == [".driver.lock", "README.md", "run.json"]
    with pytest.raises(InputError, match="cannot be written"), held(run / "run.json" / "r"):
        pass


def test_what_a_killed_process_has_left_half_written_is_removed(tmp_path):
    (tmp_path / "side").mkdir()
    for name in (f".run.json.{'a' * 32}.tmp", f"side/.{'b' * 64}.{'a' * 32}.tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".copy-x").mkdir()
    (tmp_path / ".copy-x" / "ledger.sqlite").write_text("half")
    open_run(tmp_path, "{}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "run.json", "side"]
