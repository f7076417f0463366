"""The key: where it comes from, when it is needed, and that nothing secret is shown."""

import copy
import json
import pickle

import pytest

from realwork.errors import ModelRefused
from realwork.secret import KeySource, Secret, read_headers, read_key

CANARY = "sk-canary-0123456789abcdef"
UNSET = "your-api-key-here"


def key_of(loaded):
    return loaded.config.llm_config.api_key.get_secret_value()


@pytest.mark.parametrize(
    ("flag", "written", "environ", "key"),
    [
        ("f", "w", {"OPENROUTER_API_KEY": "r", "OPENAI_API_KEY": "a"}, "f"),
        (None, "w", {"OPENROUTER_API_KEY": "r", "OPENAI_API_KEY": "a"}, "w"),
        (None, None, {"OPENROUTER_API_KEY": "r", "OPENAI_API_KEY": "a"}, "r"),
        (None, None, {"OPENAI_API_KEY": "a"}, "a"),
        (UNSET, "w", {}, "w"),
        ("", "w", {}, "w"),
        (None, UNSET, {"OPENROUTER_API_KEY": UNSET, "OPENAI_API_KEY": "a"}, "a"),
        (None, "${MINE}", {"MINE": "m", "OPENAI_API_KEY": "a"}, "m"),
        (None, "${MINE}", {"MINE": " m\n"}, "m"),
        (None, "${MINE}", {"MINE": UNSET, "OPENAI_API_KEY": "a"}, "a"),
        (None, "${MINE}", {"OPENAI_API_KEY": "a"}, "a"),
        (None, " ", {"OPENAI_API_KEY": "a"}, "a"),
    ],
)
def test_the_key_is_the_first_that_is_set(run_files, flag, written, environ, key):
    loaded = run_files.load(
        ("llm_config.api_key", written), overrides={"llm_config": {"api_key": flag}}, environ=environ
    )
    assert key_of(loaded) == key


@pytest.mark.parametrize("written", [None, UNSET, "", "${MINE}"])
def test_without_a_key_the_variables_are_named(run_files, written):
    [problem] = run_files.problems(("llm_config.api_key", written), environ={"OPENAI_API_KEY": UNSET})
    assert problem.startswith("llm_config.api_key: no key")
    assert all(name in problem for name in ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "--llm-api-key"))
    assert ("MINE is not set" in problem) == (written == "${MINE}")


def test_an_unset_reference_that_another_key_stands_in_for_draws_a_warning(run_files):
    [warning] = run_files.load(("llm_config.api_key", "${MINE}")).warnings
    assert "MINE is not set" in warning
    assert "OPENROUTER_API_KEY" in warning


@pytest.mark.parametrize(
    ("url", "key", "warns"),
    [
        ("https://openrouter.ai/api/v1", None, False),
        ("http://10.0.0.5:8000/v1", None, True),
        ("http://notopenrouter.ai/v1", None, True),
        ("http://10.0.0.5:8000/v1", "${OPENROUTER_API_KEY}", False),
    ],
)
def test_who_gets_the_key_of_openrouter_without_being_meant_is_named(run_files, url, key, warns):
    changes = [("llm_config.base_url", url), ("llm_config.api_key", key)]
    said = run_files.load(*changes, environ={"OPENROUTER_API_KEY": "sk-or"}).warnings
    assert any("gets the key of OPENROUTER_API_KEY" in each for each in said) == warns


def test_an_unset_reference_where_no_key_is_needed_draws_a_warning(run_files):
    changes = [("llm_config.api_key", "${MINE}"), ("llm_config.base_url", "http://127.0.0.1:8000/v1")]
    [warning] = run_files.load(*changes, environ={}).warnings
    assert warning == "llm_config.api_key: MINE is not set; the endpoint is asked without a key"


@pytest.mark.parametrize("written", [None, "${MINE}", UNSET])
def test_a_dry_run_needs_no_key(run_files, written):
    loaded = run_files.load(("llm_config.api_key", written), environ={}, needs_key=False)
    assert loaded.config.llm_config.api_key is None


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.0.0.5:8000/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
    ],
)
def test_only_an_endpoint_on_this_machine_works_without_a_key(run_files, url, is_local):
    changes = [("llm_config.base_url", url)]
    if is_local:
        loaded = run_files.load(*changes, environ={})
        assert loaded.config.llm_config.api_key is None
        assert read_key(loaded.key, None, {}).get_secret_value() == "EMPTY"
    else:
        assert "no key" in run_files.problems(*changes, environ={})[0]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_could_carry_is_refused_unseen(run_files, key):
    [problem] = run_files.problems(environ={"OPENAI_API_KEY": key})
    assert "OPENAI_API_KEY" in problem
    assert key not in problem


def test_a_literal_key_draws_one_warning_and_is_shown_nowhere(run_files):
    loaded = run_files.load(
        ("llm_config.api_key", CANARY), ("environments.0.init_commands", [f"export OPENAI_API_KEY={CANARY}"])
    )
    [warning] = loaded.warnings
    assert warning.startswith("llm_config.api_key: the key stands in the file")
    assert json.loads(loaded.document)["llm_config"]["api_key"] == "***"
    assert CANARY not in "".join((warning, loaded.document, loaded.environment_json("first"), repr(loaded)))


def test_a_key_given_as_a_flag_draws_one_warning_and_is_shown_nowhere(run_files):
    loaded = run_files.load(overrides={"llm_config": {"api_key": CANARY}})
    [warning] = loaded.warnings
    assert warning.startswith("--llm-api-key: the key stood on the command line")
    assert CANARY not in warning + loaded.document


def test_what_travels_is_where_the_key_is_to_be_found(run_files, monkeypatch, tmp_path):
    (tmp_path / "key").write_text(f"{CANARY}\n")
    monkeypatch.setenv("MINE", CANARY)
    sources = {
        "${MINE}": KeySource(kind="variable", name="MINE"),
        f"file:{tmp_path}/key": KeySource(kind="file", name=f"{tmp_path}/key"),
        CANARY: KeySource(kind="given"),
    }
    for written, source in sources.items():
        loaded = run_files.load(("llm_config.api_key", written), environ={"MINE": CANARY})
        assert (key_of(loaded), loaded.key) == (CANARY, source)
        assert CANARY not in loaded.document
        assert read_key(source, Secret(CANARY), {"MINE": f" {CANARY}\n"}).get_secret_value() == CANARY
    elsewhere = run_files.load(("llm_config.api_key", "${ONLY_GIVEN}"), environ={"ONLY_GIVEN": CANARY})
    assert elsewhere.key == KeySource(kind="given"), "no other process has that variable"


def test_a_node_without_the_key_says_what_to_do(tmp_path):
    for source in (KeySource(kind="variable", name="MINE"), KeySource(kind="given")):
        with pytest.raises(ModelRefused, match="is not set in Ray's processes there"):
            read_key(source, None, {"MINE": " "})
    with pytest.raises(ModelRefused, match="cannot be read from"):
        read_key(KeySource(kind="file", name=str(tmp_path / "none")), None, {})
    with pytest.raises(ModelRefused, match=r"headers: TOKEN is not set"):
        read_headers({"Authorization": "Bearer ${TOKEN}"}, {})


def test_a_file_for_the_key_that_cannot_be_read_is_named(run_files, tmp_path):
    for name in (f"{tmp_path}/none", "relative/key"):
        [problem] = run_files.problems(("llm_config.api_key", f"file:{name}"), environ={})[:1]
        assert f"the key cannot be read from the file '{name}'" in problem


def test_a_secret_shows_nowhere_and_stays_in_its_process():
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {[secret]}"
    for leave in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leave(secret)


HIDING_PLACES = [
    ("llm_config.api_key", [CANARY]),
    ("llm_config.api_key", {"key": CANARY}),
    ("llm_config", CANARY),
    ("llm_config", [CANARY]),
    ("llm_config.base_url", CANARY),
    ("llm_config.base_url", f"https://user:{CANARY}@host/v1"),
    ("llm_config.base_url", f"https://host/v1?key={CANARY}"),
    ("llm_config.apikey", CANARY),
    ("api_key", CANARY),
    ("environments.0.environment_variables", [f"TOKEN={CANARY}"]),
    ("environments.0.environment_variables", CANARY),
    ("environments.0.environment_variables", {"TOKEN": [CANARY]}),
    ("environments.0.environment_variables", {"A": f"{CANARY}\0"}),
    ("environments.0", f"TOKEN={CANARY}"),
    ("environments", {"environment_variables": {"TOKEN": CANARY}}),
    ("environments.0.copy_folders", ["${MY_TOKEN}"]),
    ("environments.0.prompt", {"api_key": CANARY}),
    ("plugins", [{"module": "m", "config": [CANARY]}]),
    ("plugins", CANARY),
]


@pytest.mark.parametrize(("where", "value"), HIDING_PLACES, ids=[f"{one[0]}={one[1]!r:.12}" for one in HIDING_PLACES])
def test_no_problem_shows_a_secret(run_files, where, value):
    problems = run_files.problems((where, value), environ={"MY_TOKEN": CANARY, "OPENAI_API_KEY": "k"})
    assert CANARY not in "".join(problems)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"llm_config": {"api_key": "%s" "model": 1}}'),
        ("run.json", '{"llm_config": {\n"api_key": "%s"\n"model": 1}}'),
        ("run.json", '{"llm_config": {\n"api_key":\n"%s" 5}}'),
        ("run.json", '{"llm_config": {"api_key": %s}}'),
        ("run.json", '{"environment_variables": {\n"A": "1",\n"B": "x %s y" 1}}'),
        ("run.json", '{"environment_variables": {\n"A": "1",\n"%s": }}'),
        ("run.json", '{"x": "%s" 1}'),
        ("run.yaml", "llm_config:\n  api_key: *%s\n"),
        ("run.yaml", "llm_config:\n  api_key: '%s' x\n"),
        ("run.yaml", "environments:\n- environment_variables:\n    A: 1\n    B: %s: x\n"),
        ("run.toml", 'api_key = "%s" x\n'),
        ("run.toml", '[environment_variables]\nA = "1"\nB = "%s" x\n'),
    ],
)
def test_a_line_that_cannot_be_parsed_does_not_show_a_secret(run_files, name, text):
    [problem] = run_files.problems_of_text(text % CANARY, name)
    assert CANARY not in problem
    assert "^" in problem


def test_the_document_hides_what_is_secret_and_keeps_references(run_files):
    variables = {
        "DB_PASSWORD": CANARY,
        "HF_TOKEN": "${TAG}",
        "URL": f"postgres://me:{CANARY}@host/db",
        "GIVEN": CANARY,
        "PYTHONPATH": "/app",
        "TOKENIZERS_PARALLELISM": "false",
    }
    loaded = run_files.load(
        ("environments.0.environment_variables", variables),
        ("llm_config.api_key", "${OPENROUTER_API_KEY}"),
        ("plugins", [{"module": "m", "config": {"apiKey": CANARY, "secrets": {"a": [CANARY]}, "path": "p"}}]),
    )
    document = json.loads(loaded.document)
    assert document["environments"][0]["environment_variables"] == {
        "DB_PASSWORD": "***",
        "HF_TOKEN": "${TAG}",
        "URL": "postgres://me:***@host/db",
        "GIVEN": "***",
        "PYTHONPATH": "/app",
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert document["llm_config"]["api_key"] == "${OPENROUTER_API_KEY}"
    assert document["plugins"][0]["config"] == {"apiKey": "***", "secrets": {"a": ["***"]}, "path": "p"}
    assert loaded.config.environments[0].environment_variables["DB_PASSWORD"] == CANARY
    assert loaded.warnings == ()


def test_headers_take_references_and_show_no_secret(run_files):
    given = {"api-key": "${SECRET_HEADER}", "Authorization": "Basic abcdefgh", "X-Title": "realwork"}
    environ = {"SECRET_HEADER": "s3cr3t-of-the-header", "OPENROUTER_API_KEY": "sk-or"}
    run_file = run_files.load(("llm_config.headers", given), environ=environ)
    assert run_file.config.llm_config.headers == given, "they are replaced where they are sent"
    assert read_headers(given, environ) == given | {"api-key": "s3cr3t-of-the-header"}
    assert "s3cr3t" not in repr(run_file.config)
    assert "s3cr3t" not in run_file.document
    assert "abcdefgh" not in run_file.document
    assert '"api-key":"${SECRET_HEADER}"' in run_file.document
    assert '"X-Title":"realwork"' in run_file.document
