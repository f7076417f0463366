"""Checks against the machine: references, folders, script, output directory."""

import os
from pathlib import Path

import pytest

from realwork.runfile import check_output
from realwork.runfile.checks import Folders


def test_references_are_replaced_where_machines_differ(run_files, tmp_path):
    (tmp_path / "folder" / "data").mkdir()
    config = run_files.load(
        ("llm_config.model", "org/${NAME}"),
        ("environments.0.docker_image", "python:${TAG}"),
        ("environments.0.copy_folders", ["${FOLDER}"]),
        ("environments.0.environment_variables", {"V": "a-${TAG}-b"}),
        ("rollout_config.trajectory_output_path", "/tmp/${NAME}"),
        ("plugins", [{"module": "m", "config": {"deep": [{"x": "${TAG}"}]}}]),
        environ={"NAME": "n", "TAG": "t", "FOLDER": "data", "OPENAI_API_KEY": "k"},
    ).config
    first = config.environments[0]
    assert (config.llm_config.model, first.docker_image, first.copy_folders) == ("org/n", "python:t", ["data"])
    assert first.environment_variables == {"V": "a-t-b"}
    assert config.rollout_config.trajectory_output_path == "/tmp/n"
    assert config.plugins[0].config == {"deep": [{"x": "t"}]}


def test_shell_syntax_in_prompts_commands_and_tests_is_left_alone(run_files):
    shell = "echo ${TAG} ${UNSET} ${x:-1} $$ $${TAG}"
    config = run_files.load(
        ("template_prompt", shell),
        ("environments.0.prompt", shell),
        ("environments.0.init_commands", [shell]),
        ("environments.0.unit_tests", [shell]),
    ).config
    first = config.environments[0]
    assert [
        config.template_prompt,
        first.prompt,
        *first.init_commands,
        *[test.command for test in first.unit_tests],
    ] == [shell] * 4


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$${TAG}", "${TAG}"),
        ("$TAG ${x:-1} ${1} $ {TAG}", "$TAG ${x:-1} ${1} $ {TAG}"),
        ("${TAG}${TAG}", "3.123.12"),
        ("${HOME}:$${PATH}", "/root:${PATH}"),
    ],
)
def test_only_a_plain_name_in_braces_is_a_reference(run_files, written, value):
    config = run_files.load(("environments.0.environment_variables", {"V": written})).config
    assert config.environments[0].environment_variables == {"V": value}


def test_every_unset_reference_is_named(run_files):
    problems = run_files.problems(
        ("environments.0.docker_image", "${A}/${B}"), ("plugins", [{"module": "m", "config": {"x": "${C}"}}])
    )
    assert [problem.split(" is not set")[0] for problem in problems] == [
        "environments[0].docker_image: the environment variable A",
        "environments[0].docker_image: the environment variable B",
        "plugins[0].config.x: the environment variable C",
    ]


def test_folders_are_found_beside_the_run_file_then_in_the_current_folder(run_files, tmp_path):
    for folder in ("folder/both", "current/both", "current/here", "absolute"):
        (tmp_path / folder).mkdir()
    absolute = str(tmp_path / "absolute")
    loaded = run_files.load(("environments.0.copy_folders", ["both", "here", absolute, "../folder/../current"]))
    expected = [tmp_path / one for one in ("folder/both", "current/here", "absolute", "current")]
    assert loaded.folders == {"first": Folders(copied=tuple(expected)), "second": Folders()}


def test_a_missing_folder_names_both_places(run_files, tmp_path):
    [problem] = run_files.problems(("environments.1.copy_folders", ["data"]))
    assert problem == (
        "environments[1].copy_folders[0]: there is no folder 'data'; "
        f"looked at {tmp_path / 'folder/data'} and {tmp_path / 'current/data'}"
    )


def test_a_file_in_place_of_a_folder_is_named_as_a_file(run_files):
    run_files.write("", "data")
    [problem] = run_files.problems(("environments.0.copy_folders", ["data"]))
    assert "'data' is a file" in problem


def test_two_folders_of_one_name_collide_only_within_one_environment(run_files, tmp_path):
    for folder in ("folder/a/data", "folder/b/data"):
        (tmp_path / folder).mkdir(parents=True)
    assert run_files.load(("environments.0.copy_folders", ["a/data"]), ("environments.1.copy_folders", ["b/data"]))
    [problem] = run_files.problems(("environments.0.copy_folders", ["a/data", "b/data"]))
    assert problem.startswith("environments[0].copy_folders[1]: 'b/data' would be copied to the same place as")


@pytest.mark.parametrize("folder", ["~nobody-of-that-name/x", "x" * 5000, "/", "a\0b"])
def test_a_folder_that_cannot_be_is_a_problem(run_files, folder):
    [problem] = run_files.problems(("environments.0.copy_folders", [folder]))
    assert problem.startswith("environments[0].copy_folders[0]: ")


SCRIPT = '[{"content": "hi", "tool_calls": [{"name": "mark_done"}]}]'


def test_a_script_is_found_and_its_path_made_absolute_and_no_key_is_needed(run_files, tmp_path):
    run_files.write(SCRIPT, "script.json")
    loaded = run_files.load(("llm_config.model", "scripted:script.json"), environ={})
    assert loaded.config.llm_config.model == f"scripted:{tmp_path / 'folder/script.json'}"
    assert loaded.config.llm_config.api_key is None


def test_a_script_given_as_a_flag_is_looked_for_in_the_current_folder_first(run_files, tmp_path):
    run_files.write(SCRIPT, "script.json")
    (tmp_path / "current/script.json").write_text(SCRIPT)
    loaded = run_files.load(overrides={"llm_config": {"model": "scripted:script.json"}})
    assert loaded.config.llm_config.model == f"scripted:{tmp_path / 'current/script.json'}"


@pytest.mark.parametrize(
    ("model", "script", "said"),
    [
        ("scripted:no.json", "", "there is no script 'no.json'; looked at"),
        ("scripted:", "", "a file is expected after 'scripted:'"),
        ("scripted:script.json", "{", "not valid JSON"),
        ("scripted:script.json", '[{"contents": "x"}]', "[0].contents"),
        ("scripted:script.json", '{"first": [{"tool_calls": 5}]}', "first[0].tool_calls"),
    ],
)
def test_a_script_that_cannot_be_played_is_a_problem(run_files, model, script, said):
    run_files.write(script, "script.json")
    [problem] = run_files.problems(("llm_config.model", model))
    assert problem.startswith("llm_config.model: ")
    assert said in problem


def test_replies_for_an_environment_that_is_not_there_draw_a_warning(run_files):
    run_files.write('{"first": [], "thrid": []}', "script.json")
    [warning] = run_files.load(("llm_config.model", "scripted:script.json")).warnings
    assert "'thrid'" in warning


def test_the_output_directory_becomes_absolute(run_files, tmp_path):
    loaded = run_files.load(("rollout_config.trajectory_output_path", "out/../there"))
    assert loaded.config.rollout_config.trajectory_output_path == str(tmp_path / "current/there")


def test_a_writable_output_directory_has_no_problem_and_nothing_is_created(tmp_path):
    assert check_output(tmp_path / "a/b/c") == []
    assert check_output(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/below/it", "broken"])
def test_a_file_in_the_way_of_the_output_is_named(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    [problem] = check_output(tmp_path / path)
    assert str(tmp_path / path.partition("/")[0]) in problem
    assert "another directory" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    [problem] = check_output(tmp_path / "out")
    assert "cannot be created" in problem


def test_an_output_on_a_read_only_file_system_is_a_problem():
    read_only = [one for one in _mounts() if os.statvfs(one).f_flag & os.ST_RDONLY and one.is_dir()]
    if not read_only:
        pytest.skip("no file system here is mounted read-only")
    [problem] = check_output(read_only[0] / "out")
    assert "read-only" in problem


def _mounts():
    mounts = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines())
    return [one for one in mounts if one.exists()]


def test_object_storage_may_be_the_output_but_no_other_url_and_none_with_a_key(run_files):
    place = "rollout_config.trajectory_output_path"
    for url in ("s3://bucket/out/", "gs://bucket"):
        assert run_files.load((place, url)).config.rollout_config.trajectory_output_path == url.rstrip("/")
    [problem] = run_files.problems((place, "https://host/out"))
    assert "is a URL that cannot be used" in problem
    [problem] = run_files.problems((place, "s3://key:secret@bucket/out"))
    assert "would stand in run.json" in problem


def test_folders_of_the_tests_are_found_as_the_copied_ones_are(run_files, tmp_path):
    for folder in ("folder/code", "current/tests"):
        (tmp_path / folder).mkdir()
    loaded = run_files.load(("environments.0.copy_folders", ["code"]), ("environments.0.test_folders", ["tests"]))
    assert loaded.folders["first"] == Folders(
        copied=(tmp_path / "folder/code",), for_tests=(tmp_path / "current/tests",)
    )


def test_a_folder_of_the_tests_cannot_take_the_place_of_a_copied_one(run_files, tmp_path):
    (tmp_path / "folder/tests").mkdir()
    [problem] = run_files.problems(
        ("environments.0.copy_folders", ["tests"]), ("environments.0.test_folders", ["tests"])
    )
    assert problem.startswith("environments[0].test_folders[0]: 'tests' would be copied to the same place as")


def test_only_a_copied_folder_can_be_staged_again(run_files, tmp_path):
    (tmp_path / "folder/tests").mkdir()
    [problem] = run_files.problems(
        ("environments.0.copy_folders", ["tests"]), ("environments.0.grading_config", {"restage_folders": ["test"]})
    )
    assert problem == "environments[0].grading_config.restage_folders: 'test' is no copied folder (tests)"


def test_a_fresh_sandbox_cannot_take_over_the_whole_file_system(run_files):
    for directory in ("/", "//etc/", "/proc/1", "/work/../dev"):
        [problem] = run_files.problems(("environments.0.working_directory", directory))
        assert problem.startswith("environments[0].working_directory: tests in a fresh sandbox get the working")
    run_files.load(("environments.0.working_directory", "/"), ("grading_config", {"mode": "same"}))


def test_an_environment_takes_the_grading_that_it_does_not_name_from_the_run(run_files, tmp_path):
    (tmp_path / "folder/tests").mkdir()
    config = run_files.load(
        ("environments.0.copy_folders", ["tests"]),
        ("environments.0.grading_config", {"restage_folders": []}),
        ("grading_config", {"mode": "same"}),
    ).config
    assert config.grading(config.environments[0]).model_dump() == {"mode": "same", "restage_folders": []}
    assert config.grading(config.environments[1]).model_dump() == {"mode": "same", "restage_folders": None}
