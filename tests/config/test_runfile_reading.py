"""Reading: the formats, and files that cannot be read or parsed."""

import json
import os

import pytest

from realwork.errors import InputError
from realwork.runfile import load_run_file

YAML = """
environments:
  - id: first
    docker_image: "python:3.12"
    prompt: |
      Write a calculator.
    unit_tests: [pytest -q]
rollout_config: {max_parallel_rollouts: 2}
template_prompt: You are an engineer.
"""
TOML = """
template_prompt = "You are an engineer."
[rollout_config]
max_parallel_rollouts = 2
[[environments]]
id = "first"
docker_image = "python:3.12"
prompt = "Write a calculator."
unit_tests = ["pytest -q"]
"""


@pytest.mark.parametrize(
    ("name", "text"), [("run.yaml", YAML), ("run.yml", YAML), ("run.YAML", YAML), ("run.toml", TOML)]
)
def test_yaml_and_toml_are_told_by_their_suffix(run_files, name, text):
    config = run_files.load_text(text, name).config
    assert (config.environments[0].id, config.rollout_config.max_parallel_rollouts) == ("first", 2)


@pytest.mark.parametrize("name", ["run.json", "run", "run.conf"])
def test_any_other_file_is_json(run_files, name):
    assert run_files.load_text(json.dumps(run_files.document()), name).path.name == name


def test_a_byte_order_mark_is_accepted(run_files):
    assert run_files.load_text(b"\xef\xbb\xbf" + json.dumps(run_files.document()).encode()).warnings == ()


def test_invalid_json_is_shown_with_line_column_and_caret(run_files):
    [problem] = run_files.problems_of_text('{\n  "template_prompt": "t"\n  "rollout_config": {}\n}')
    first, line, caret = problem.split("\n")
    assert "run.json: line 3, column 3: invalid JSON" in first
    assert line.strip() == '"rollout_config": {}'
    assert line[caret.index("^")] == '"'


def test_the_caret_stays_in_view_in_a_very_long_line(run_files):
    [problem] = run_files.problems_of_text('{"template_prompt": "' + "x" * 5000 + '" ! }')
    _, line, caret = problem.split("\n")
    assert len(line) < 120
    assert line[caret.index("^")] == "!"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("run.yaml", "a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2"),
        ("run.yaml", "a: 1\n\tb: 2\n", "line 2, column 1"),
        ("run.yaml", "a: !!python/object:os.system x\n", "line 1, column 4"),
        ("run.toml", "a = 1\nb = = 2\n", "line 2, column 5"),
        ("run.toml", 'a = "x', "line 1, column 1"),
        ("run.toml", "a = 1\na = 2\n", "line 2, column 6"),
    ],
)
def test_invalid_yaml_and_toml_are_shown_with_line_column_and_caret(run_files, name, text, line):
    [problem] = run_files.problems_of_text(text, name)
    assert line in problem
    assert problem.endswith("^")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", b"", "empty"),
        ("run.json", b" \n", "empty"),
        ("run.json", b"[]", "expected an object"),
        ("run.yaml", b"just text", "expected an object with the key 'environments', found text"),
        ("run.json", b'{\n"a": "\xff"}', "line 2: the file is not UTF-8"),
        ("run.json", '{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ("run.json", b"[" * 100_000, "nested too deeply"),
        ("run.json", b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        ("run.yaml", b"a: 2024-99-99", "date does not exist"),
        ("run.yaml", b"a: !!bool perhaps", "does not fit its tag"),
        ("run.yaml", b"a: \x01", "control character"),
        ("run.yaml", b"a: *nothing", "undefined alias"),
    ],
)
def test_a_file_without_a_document_is_one_clear_problem(run_files, name, content, said):
    [problem] = run_files.problems_of_text(content, name)
    assert said in problem
    assert name in problem


def test_a_missing_file_is_one_clear_problem(tmp_path):
    with pytest.raises(InputError, match="there is no such file") as caught:
        load_run_file(tmp_path / "nothing.json")
    assert len(caught.value.problems) == 1


def test_a_directory_is_one_clear_problem(tmp_path):
    with pytest.raises(InputError, match="is a directory") as caught:
        load_run_file(tmp_path)
    assert len(caught.value.problems) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_one_clear_problem(run_files):
    path = run_files.write("{}")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        load_run_file(path)


def test_a_file_below_a_file_cannot_be_read(run_files):
    path = run_files.write("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_run_file(path / "run.json")


def test_a_key_that_stands_twice_is_named_with_its_place(run_files):
    text = json.dumps(run_files.document()).replace('"id": "second"', '"id": "second", "id": "third"')
    assert run_files.problems_of_text(text) == ["environments[1].id: the key stands there twice"]


def test_a_yaml_key_that_stands_twice_is_named_with_its_line(run_files):
    assert run_files.problems_of_text(YAML + "rollout_config: {}\n", "run.yaml") == [
        "line 10: the key 'rollout_config' stands there twice"
    ]


def test_yaml_anchors_and_merge_keys_are_no_duplicates(run_files):
    text = YAML + "timeout_config: &t {command_timeout: 5}\n"
    text = text.replace(
        "    unit_tests", "    timeout_config: {<<: {test_timeout: 6}, command_timeout: 7}\n    unit_tests"
    )
    timeouts = run_files.load_text(text, "run.yaml").config.environments[0].timeout_config
    assert (timeouts.command_timeout, timeouts.test_timeout) == (7, 6)


def test_a_yaml_document_that_contains_itself_is_refused(run_files):
    problems = run_files.problems_of_text(YAML + "plugins: [{module: m, config: &a {a: *a}}]\n", "run.yaml")
    assert problems == ["plugins[0].config.a: it is nested too deeply, or contains itself"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "id: first",
            "id: no",
            "environments[0].id: expected text, found false: put it in quotes. In YAML, on, off, yes",
        ),
        ('"python:3.12"', "3.12", "environments[0].docker_image: expected text, found 3.12: put it in quotes"),
        ("[pytest -q]", "[yes]", "environments[0].unit_tests[0]: expected text, found true: put it in quotes. In YAML"),
        ("id: first", "id: 2024-01-02", "environments[0].id: expected JSON values, found a date: put it in quotes"),
        ("id: first", "on: first", "environments[0]: a key is true, not text: put it in quotes. In YAML, on, off"),
    ],
)
def test_a_yaml_trap_gets_a_hint_to_quote(run_files, old, new, problem):
    assert any(one.startswith(problem) for one in run_files.problems_of_text(YAML.replace(old, new), "run.yaml"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "plugins[0].config.x: expected a finite number, found NaN"),
        ('"\\ud800"', "plugins[0].config.x: the text contains half of a character (a lone surrogate)"),
        ("1" * 30, "plugins[0].config.x: the number has too many digits"),
    ],
)
def test_a_value_that_no_row_could_hold_is_refused_in_open_places_too(run_files, value, said):
    text = json.dumps(run_files.document(("plugins", [{"module": "m", "config": {"x": "HERE"}}])))
    assert run_files.problems_of_text(text.replace('"HERE"', value)) == [said]
