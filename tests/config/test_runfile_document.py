"""The document of a run file, and that no input at all brings the loader down."""

import copy
import json
import pickle
import random

import pytest

from realwork.errors import InputError
from realwork.runfile import load_run_file

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    5,
    1.5,
    float("nan"),
    "",
    " ",
    "5",
    "text",
    "${NO}",
    "a\0b",
    "\ud800",
    [],
    {},
    ["x"],
]
VALUES += [{"a": 1}, [[]], [None], 10**30, "scripted:", "http://", "~x/y", "/", {"": ""}, [{}], "id", "x" * 300]
KEYS = ["id", "prompt", "unit_test", "model", "llm_model", "output_path", "timeout_config", "", "a.b", "[key]", "\x1b"]


def test_the_document_has_every_default_and_the_flags_and_is_canonical(run_files):
    loaded = run_files.load(
        ("environments.0.docker_image", "python:${TAG}"), overrides={"llm_config": {"max_tokens": 77}}
    )
    document = json.loads(loaded.document)
    assert document["llm_config"]["max_tokens"] == 77
    assert document["timeout_config"] == {"command_timeout": 300.0, "global_timeout": 1800.0, "test_timeout": 120.0}
    assert document["environments"][0]["docker_image"] == "python:${TAG}"
    assert document["rollout_config"]["trajectory_output_path"] == "trajectories"
    assert loaded.document == json.dumps(document, sort_keys=True, separators=(",", ":"))


def test_the_document_is_the_same_for_the_same_file_in_another_order(run_files):
    document = run_files.document()
    turned = dict(reversed(document.items()))
    assert run_files.load_text(json.dumps(document)).document == run_files.load_text(json.dumps(turned)).document


def test_the_document_is_a_valid_run_file_again(run_files):
    first = run_files.load(("environments.0.timeout_config", {"test_timeout": 7}), ("plugins", ["a.b"]))
    assert run_files.load_text(first.document).document == first.document


def test_one_environment_can_be_taken_from_the_document(run_files):
    loaded = run_files.load(("environments.1.environment_variables", {"V": "${TAG}"}))
    assert json.loads(loaded.environment_json("second")) == json.loads(loaded.document)["environments"][1]
    with pytest.raises(KeyError):
        loaded.environment_json("third")


def test_a_run_file_travels_only_without_its_key(run_files):
    loaded = run_files.load()
    with pytest.raises(TypeError, match="a secret does not leave its process"):
        pickle.dumps(loaded)
    llm = loaded.config.llm_config.model_copy(update={"api_key": None})
    keyless = loaded.model_copy(update={"config": loaded.config.model_copy(update={"llm_config": llm})})
    assert pickle.loads(pickle.dumps(keyless)) == keyless


def test_the_environment_is_read_from_the_process_unless_it_is_given(run_files, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "from-the-process")
    loaded = load_run_file(run_files.write(json.dumps(run_files.document())))
    assert loaded.config.llm_config.api_key.get_secret_value() == "from-the-process"


def rich_document(run_files):
    return run_files.document(
        ("environments.0.init_commands", ["a", "b"]),
        ("environments.0.environment_variables", {"A": "${TAG}"}),
        ("environments.0.timeout_config", {"test_timeout": 5}),
        ("environments.0.copy_folders", ["."]),
        ("llm_config", {"model": "m", "api_key": "${OPENROUTER_API_KEY}", "base_url": "http://h/v1", "max_tokens": 5}),
        ("timeout_config", {"global_timeout": 5}),
        ("episode_control_config", {"max_episodes": 2}),
        ("sandbox_config", {"cpus": 2}),
        ("plugins", ["m", {"module": "n", "config": {"a": [1, "${TAG}"]}}]),
        ("max_parallel_rollouts", 3),
    )


def mutate(value, dice):
    """Change one place of `value`, chosen at random."""
    holders = [value]
    for holder in holders:
        holders += [
            one for one in (holder.values() if isinstance(holder, dict) else holder) if isinstance(one, dict | list)
        ]
    holder = dice.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    match dice.randrange(4):
        case 0 if keys:
            del holder[dice.choice(keys)]
        case 1 if isinstance(holder, dict):
            holder[dice.choice(KEYS)] = copy.deepcopy(dice.choice(VALUES))
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(dice.choice([*VALUES, *holder])))
        case _ if keys:
            holder[dice.choice(keys)] = copy.deepcopy(dice.choice(VALUES))


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_written_the_answer_is_a_run_file_or_its_problems(run_files, seed):
    dice = random.Random(seed)
    document = rich_document(run_files)
    for _ in range(dice.randint(1, 6)):
        mutate(document, dice)
    try:
        loaded = run_files.load_text(json.dumps(document))
    except InputError as error:
        problems = error.problems
    else:
        problems = ()
        assert json.loads(loaded.document)["environments"]
    assert all(problem.strip() and problem.isprintable() for problem in problems)


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("name", ["run.json", "run.yaml", "run.toml"])
def test_whatever_is_damaged_in_the_text_the_answer_is_a_run_file_or_its_problems(run_files, seed, name):
    dice = random.Random(seed)
    text = list(json.dumps(rich_document(run_files), indent=1))
    for _ in range(dice.randint(1, 3)):
        text[dice.randrange(len(text))] = dice.choice(["", "{", "}", '"', ",", "\n", ":", "&a", "*a", "\x00", "!!int "])
    try:
        run_files.load_text("".join(text), name)
    except InputError as error:
        problems = error.problems
    else:
        problems = ()
    assert all(problem.strip() for problem in problems)
