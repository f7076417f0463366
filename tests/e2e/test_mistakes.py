"""Every mistake of a user: exit code 2, all problems at once, no traceback, nothing started."""

import json
import signal

import pytest

from realwork.sandbox.engine import connect
from tests.e2e.command import environment, plain, realwork, rows, run_file, running, wait_until
from tests.endpoint import DONE, Endpoint, by_turn, run

KEY = {"OPENROUTER_API_KEY": "sk-canary-mistakes"}


def refused(folder, *arguments, **variables):
    """What the command says when it refuses; checked for what holds of every refusal."""
    result = realwork(*arguments, cwd=folder, **variables)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (folder / "out").exists()
    assert "sk-canary" not in result.stderr
    return plain(result.stderr)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"environments": [environment("e") | {"unit_test": ["true"]}]},
            ["environments[0].unit_test: unknown key. Did you mean 'unit_tests'?"],
        ),
        ({"environments": [environment("e"), environment("e")]}, ["environments[1].id"]),
        ({"environments": []}, ["environments"]),
        ({"environments": [environment("e", prompt=" ")]}, ["environments[0].prompt"]),
        ({"timeout_config": {"global_timeout": -1, "command_timeout": 0}}, ["global_timeout", "command_timeout"]),
        ({"timeout_config": {"test_timeout": "soon"}}, ["timeout_config.test_timeout"]),
        ({"timeout_config": {"test_timeout": float("nan")}}, ["timeout_config.test_timeout"]),
        (
            {"environments": [environment("e", copy_folders=["nowhere"])]},
            ["environments[0].copy_folders[0]", "nowhere"],
        ),
        ({"llm_config": {"base_url": "127.0.0.1:8000/v1"}}, ["llm_config.base_url"]),
        ({"llm_config": {"base_url": "http://h/v1/chat/completions"}}, ["llm_config.base_url", "/chat/completions"]),
        ({"llm_config": {"base_url": "https://h/v1"}}, ["OPENROUTER_API_KEY", "OPENAI_API_KEY"]),
        ({"llm_config": {"base_url": "https://h/v1", "api_key": "your-api-key-here"}}, ["OPENROUTER_API_KEY"]),
        ({"rollout_config": {"trajectory_output_path": "/dev/null/x"}}, ["/dev/null"]),
        ({"template_prompt": None}, ["template_prompt"]),
    ],
    ids=lambda value: str(sorted(value))[:50] if isinstance(value, dict) else "",
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path, sections, said):
    text = refused(tmp_path, "run", run_file(tmp_path, **sections))
    for words in said:
        assert words in text


def test_all_problems_are_named_at_once(tmp_path):
    file = run_file(
        tmp_path,
        environments=[environment("e", copy_folders=["nowhere"]) | {"unit_test": []}, environment("e")],
        timeout_config={"global_timeout": 0},
        llm_config={"base_url": "ftp://x"},
        plugns=[],
    )
    text = refused(tmp_path, "run", file)
    for words in ("unit_test", "nowhere", "environments[1].id", "global_timeout", "base_url", "plugns"):
        assert words in text


def test_invalid_json_is_shown_with_line_and_column(tmp_path):
    (tmp_path / "run.json").write_text('{\n  "environments": [,]\n}')
    text = refused(tmp_path, "run", "run.json")
    assert "line 2" in text
    assert "column 20" in text
    assert '"environments": [,]' in text


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_run_file_that_is_none_is_named(tmp_path, name):
    assert name in refused(tmp_path, "run", name) or str(tmp_path) in refused(tmp_path, "run", name)


def test_a_flag_that_is_wrong_is_named_as_a_flag(tmp_path):
    file = run_file(tmp_path)
    assert "--llm-temperature" in refused(tmp_path, "run", file, "--llm-temperature", "9")
    assert "--run-id" in refused(tmp_path, "run", file, "--run-id", "../x")
    assert "--resume" in refused(tmp_path, "run", file, "--resume", tmp_path / "nowhere")
    assert "--no-such-flag" in refused(tmp_path, "run", file, "--no-such-flag")


def test_an_engine_that_cannot_be_reached_is_named_with_its_socket(tmp_path):
    socket = tmp_path / "none.sock"
    text = refused(tmp_path, "run", run_file(tmp_path), DOCKER_HOST=f"unix://{socket}")
    assert str(socket) in text
    assert "cluster/setup.sh" in text


def test_images_that_cannot_be_had_are_named_one_by_one(docker_image, tmp_path):
    environments = [environment(name, docker_image=f"realwork.invalid/{name}:1") for name in ("one", "two")]
    text = refused(tmp_path, "run", run_file(tmp_path, environments=environments))
    assert "realwork.invalid/one:1" in text
    assert "realwork.invalid/two:1" in text


def test_an_image_without_a_shell_is_named(docker_image, tmp_path):
    client = connect()
    empty = tmp_path / "empty.tar"
    empty.write_bytes(b"\0" * 10240)
    client.import_image_from_file(str(empty), repository="realwork/test-empty", tag="1")
    try:
        file = run_file(tmp_path, environments=[environment("e", docker_image="realwork/test-empty:1")])
        assert "no /bin/sh" in refused(tmp_path, "run", file)
    finally:
        client.remove_image("realwork/test-empty:1")
        client.close()


def test_more_memory_or_cpu_than_any_node_has_is_refused(docker_image, tmp_path):
    text = refused(tmp_path, "run", run_file(tmp_path, sandbox_config={"memory_mib": 1 << 30}))
    assert "sandbox_config.memory_mib" in text
    text = refused(tmp_path, "run", run_file(tmp_path, sandbox_config={"cpus": 4096}))
    assert "4096 CPUs" in text


def test_a_runtime_or_network_that_the_engine_does_not_have_is_refused(docker_image, tmp_path):
    wrong = {"runtime": "no-such-runtime", "network": "no-such-network"}
    for command in ("run", "check"):
        text = refused(tmp_path, command, run_file(tmp_path, sandbox_config=wrong))
        assert "no-such-runtime" in text
        assert "no-such-network" in text


def test_problems_of_plugins_images_and_the_machine_are_named_together(docker_image, tmp_path):
    file = run_file(
        tmp_path,
        plugins=["not_there"],
        sandbox_config={"memory_mib": 1 << 30},
        environments=[environment("e", docker_image="realwork.invalid/one:1")],
    )
    text = refused(tmp_path, "run", file)
    for words in ("not_there", "memory_mib", "realwork.invalid/one:1"):
        assert words in text


@pytest.mark.usefixtures("on_cluster")
def test_a_run_that_is_being_played_is_refused_to_a_second_driver(docker_image, tmp_path):
    with Endpoint(lambda _: run("sleep 60")) as endpoint:
        file = run_file(tmp_path, endpoint.base_url)
        with running("run", file, "--run-id", "once", cwd=tmp_path) as first:
            wait_until(lambda: endpoint.requests != [], seconds=240, what="the first request")
            second = realwork("run", file, "--run-id", "once", cwd=tmp_path)
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=40)
    assert second.returncode == 2, second.stderr
    assert f"process {first.pid} on" in second.stderr
    assert len(rows(tmp_path / "out" / "once")) == 1


@pytest.mark.usefixtures("on_cluster")
def test_a_failing_plugin_is_said_once_and_costs_nothing(docker_image, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING_PLUGIN)
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, plugins=["raising"], episode_control_config={"max_episodes": 2})
        result = realwork("run", file, "--run-id", "raising", "--no-ray", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("plugin raising failed") == 1
    assert all(row["success"] and "no luck" in row["plugin_data"] for row in rows(tmp_path / "out" / "raising"))


RAISING_PLUGIN = """
from realwork.plugins import PluginHookType, TrajectoryAnalyzerPlugin


class Raising(TrajectoryAnalyzerPlugin):
    name = "raising"
    version = "1"
    supported_hooks = [PluginHookType.POST_EPISODE]

    async def analyze_trajectory(self, trajectory):
        raise ValueError("no luck")

    async def suggest_improvements(self, trajectory):
        return []
"""


def test_a_plugin_that_cannot_be_imported_is_named_with_the_error(tmp_path):
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_at_all\n")
    text = refused(tmp_path, "run", run_file(tmp_path, plugins=["broken_plugin", "not_there"]))
    assert "broken_plugin" in text
    assert "no_such_module_at_all" in text
    assert "not_there" in text


def test_no_cluster_at_the_address_is_named(docker_image, tmp_path):
    text = refused(tmp_path, "run", run_file(tmp_path), "--address", "127.0.0.1:1")
    assert "127.0.0.1:1" in text


def test_a_dry_run_needs_no_key_and_no_engine_and_starts_nothing(tmp_path):
    file = run_file(tmp_path, llm_config={"base_url": "https://example.invalid/v1"})
    result = realwork("run", file, "--dry-run", cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert result.returncode == 0, result.stderr
    assert "1 rollout, at most" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_check_refuses_an_output_that_cannot_be_written(docker_image, tmp_path):
    file = run_file(tmp_path, rollout_config={"trajectory_output_path": "/proc/nope"})
    assert "/proc/nope: the output directory cannot be written" in refused(tmp_path, "check", file)


def test_images_says_what_is_wrong_with_its_options_and_removes_nothing(tmp_path):
    for arguments in (("--prune", "--unused-for", "-1"), ("--unused-for", "30")):
        assert "--unused-for" in refused(tmp_path, "images", *arguments)


def test_check_says_ok_or_what_is_missing(docker_image, tmp_path):
    result = realwork("check", run_file(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "ok:" in result.stdout
    text = refused(tmp_path, "check", run_file(tmp_path), DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert "none.sock" in text


def test_check_warns_of_copied_folders_in_which_edits_are_undone(docker_image, tmp_path):
    (tmp_path / "project").mkdir()
    file = run_file(tmp_path, environments=[environment("e", copy_folders=["project"])])
    assert "warning: environments[0].copy_folders: for the tests they are put back" in plain(
        realwork("check", file, cwd=tmp_path).stderr
    )
    named = environment("e", copy_folders=["project"], grading_config={"restage_folders": []})
    assert "put back" not in realwork("check", run_file(tmp_path, environments=[named]), cwd=tmp_path).stderr


def test_check_names_the_field_of_a_network_that_does_not_exist(docker_image, tmp_path):
    file = run_file(tmp_path, environments=[environment("e", init_commands=["true"], init_network="none-such")])
    assert "init_network of e: the engine has no network called 'none-such'" in refused(tmp_path, "check", file)


def test_old_root_keys_are_mapped_with_a_warning_each(tmp_path):
    document = json.loads(run_file(tmp_path).read_text()) | {"max_episodes": 4, "max_parallel_rollouts": 2}
    (tmp_path / "run.json").write_text(json.dumps(document))
    result = realwork("run", "run.json", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 rollouts, at most 2 at once" in result.stdout
    assert result.stderr.count("warning:") == 2


def test_doctor_says_what_is_there_and_what_is_missing(docker_image, tmp_path):
    healthy = realwork("doctor", cwd=tmp_path)
    assert "Docker engine" in healthy.stdout
    assert "realwork/base:bookworm" in healthy.stdout
    assert healthy.returncode == (1 if "BAD" in healthy.stdout else 0)
    ill = realwork("doctor", cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert ill.returncode == 1
    assert "none.sock" in ill.stdout
