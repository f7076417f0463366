"""Flags over the file, and the seven old keys."""

import json

import pytest

from realwork.errors import InputError
from realwork.runfile import load_run_file

OLD = [
    ("llm_model", "m", "llm_config", "model"),
    ("max_episodes", 7, "episode_control_config", "max_episodes"),
    ("stop_on_success", True, "episode_control_config", "stop_on_success"),
    ("max_parallel_rollouts", 9, "rollout_config", "max_parallel_rollouts"),
    ("output_path", "/tmp/elsewhere", "rollout_config", "trajectory_output_path"),
    ("plugins_enabled", False, "rollout_config", "enable_plugins"),
    ("global_timeout", 42, "timeout_config", "global_timeout"),
]


@pytest.mark.parametrize(("old", "value", "section", "field"), OLD)
def test_an_old_key_works_with_one_warning(run_files, old, value, section, field):
    loaded = run_files.load((old, value))
    assert getattr(getattr(loaded.config, section), field) == value
    assert loaded.warnings == (f"{old}: this key has moved to {section}.{field}",)
    assert json.loads(loaded.document)[section][field] == value


def test_an_old_key_makes_up_for_a_missing_section(run_files):
    assert (
        run_files.load(("rollout_config", ...), ("output_path", "o")).config.rollout_config.max_parallel_rollouts == 4
    )


def test_where_both_keys_are_set_and_differ_the_new_one_wins_and_the_warning_says_so(run_files):
    loaded = run_files.load(("llm_model", "old"), ("llm_config.model", "new"))
    assert loaded.config.llm_config.model == "new"
    assert [one for one in loaded.warnings if "llm_config.model wins" in one] == list(loaded.warnings)


def test_where_both_keys_agree_nothing_wins(run_files):
    [warning] = run_files.load(("llm_model", "same"), ("llm_config.model", "same")).warnings
    assert "wins" not in warning


def test_a_wrong_value_is_named_under_the_old_key_that_was_written(run_files):
    assert run_files.problems(("global_timeout", -1)) == [
        "global_timeout: expected a number of seconds greater than 0, found -1"
    ]


def test_a_flag_wins_over_the_file_and_over_the_old_key(run_files):
    loaded = run_files.load(
        ("llm_model", "old"), ("llm_config.model", "new"), overrides={"llm_config": {"model": "flag"}}
    )
    assert loaded.config.llm_config.model == "flag"
    assert json.loads(loaded.document)["llm_config"]["model"] == "flag"


def test_a_flag_that_was_not_given_changes_nothing(run_files):
    changes = [("llm_config.temperature", 0.1)]
    plain = run_files.load(*changes)
    for overrides in ({}, {"llm_config": {}}, {"llm_config": {"temperature": None}}):
        assert run_files.load(*changes, overrides=overrides) == plain


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("llm_config", "temperature", 9.0, "--llm-temperature: expected a number of at most 2, found 9.0"),
        ("llm_config", "max_tokens", -1, "--llm-max-tokens: expected a number greater than 0, found -1"),
        ("llm_config", "max_output_length", 1, "--llm-max-output-length: expected a number of at least 100"),
        ("llm_config", "base_url", "h", "--llm-base-url: must begin with http:// or https://"),
        ("llm_config", "model", "scripted:no.json", "--llm-model: there is no script 'no.json'"),
        ("sandbox_config", "kind", "vm", "--sandbox: expected one of 'docker', 'local' or 'memory', found 'vm'"),
    ],
)
def test_a_wrong_flag_is_named_as_the_flag(run_files, section, field, value, said):
    [problem] = run_files.problems(overrides={section: {field: value}})
    assert problem.startswith(said)


def test_a_good_flag_over_a_wrong_value_of_the_file_leaves_no_problem(run_files):
    assert run_files.load(("llm_config.max_tokens", -1), overrides={"llm_config": {"max_tokens": 5}})


def test_a_flag_for_a_broken_section_leaves_the_problem_to_the_file(run_files):
    problems = run_files.problems(("llm_config", "text"), overrides={"llm_config": {"max_tokens": 5}})
    assert problems == ["llm_config: expected an object, found text"]


def test_a_file_alone_cannot_take_the_isolation_away(tmp_path):
    document = {
        "environments": [{"id": "e", "docker_image": "i", "prompt": "p", "unit_tests": ["true"]}],
        "rollout_config": {},
        "template_prompt": "s",
        "sandbox_config": {"kind": "local"},
    }
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        load_run_file(file, needs_key=False)
    assert "--sandbox local" in caught.value.problems[0]
    document.pop("sandbox_config")
    file.write_text(json.dumps(document))
    local = load_run_file(file, overrides={"sandbox_config": {"kind": "local"}}, needs_key=False)
    assert local.config.sandbox_config.kind == "local"
