"""What the README says holds: its commands run, its tables are the models' own, its tree is the package's."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from realwork import config
from realwork.runfile import load_run_file
from tests.e2e.cluster import TOKEN
from tests.e2e.command import REALWORK, REPOSITORY, clean_environment

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SECTIONS = {
    "environments[]": config.EnvironmentConfig,
    "unit_tests[]": config.UnitTest,
    "llm_config": config.LlmConfig,
    "prices.MODEL": config.Price,
    "rollout_config": config.RolloutConfig,
    "episode_control_config": config.EpisodeControlConfig,
    "timeout_config": config.TimeoutConfig,
    "sandbox_config": config.SandboxConfig,
    "grading_config": config.GradingConfig,
    "plugins[]": config.PluginEntry,
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order; "" for those without one."""
    parts = README.split("```")[1::2]
    return [text for name, _, text in (part.partition("\n") for part in parts) if name == language]


def commands() -> list[str]:
    """Every command of the shell blocks, without its comment."""
    lines = [line.split("  #")[0].split("   #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{json.dumps(value)}`"


def field_table() -> str:
    """The table of every section's fields, from the models: what the README must hold."""
    lines = ["| section | field | default | meaning |", "| --- | --- | --- | --- |"]
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            meaning = " ".join((field.description or "").split())
            assert meaning, f"{section}.{name} has no description"
            lines.append(f"| {section} | `{name}` | {default(field)} | {meaning} |")
    return "\n".join(lines)


def test_the_table_of_fields_is_that_of_the_models():
    assert field_table() in README


def test_the_run_file_of_the_readme_is_valid(tmp_path):
    (tmp_path / "run.json").write_text(blocks("json")[0])
    loaded = load_run_file(tmp_path / "run.json", environ={"OPENROUTER_API_KEY": "sk-x"})
    assert loaded.config.episode_control_config.max_episodes == 8


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs").glob("*.json")), ids=lambda file: file.name)
def test_every_run_file_in_configs_is_valid_and_explained(file):
    if file.name == "scripted_replies.json":
        return
    names = ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY", "ANTHROPIC_API_KEY", "LLM_MODEL", "LLM_API_KEY")
    environ = dict.fromkeys(names, "sk-x") | {"LLM_BASE_URL": "http://h/v1", "REALWORK_TRAJECTORIES": "/tmp"}
    assert load_run_file(file, environ=environ).warnings == ()
    assert f"`{file.name}`" in (REPOSITORY / "configs" / "README.md").read_text(encoding="utf-8")


def test_the_tree_of_the_readme_is_the_package():
    tree = README.split("```\nrealwork/\n")[1].split("```")[0]
    named = set(re.findall(r"([a-z_]+\.py|[a-z_]+/)", tree))
    there = {path.name + ("/" if path.is_dir() else "") for path in (REPOSITORY / "realwork").iterdir()}
    assert named - there == set()
    assert there - named - {"__init__.py", "py.typed", "__pycache__/"} == set()


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target


@pytest.fixture(scope="module")
def played(docker_image, ray_address, tmp_path_factory):
    """The commands of the README, run in order in a copy of the checkout's files, with a Ray that is there."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "examples"):
        shutil.copytree(REPOSITORY / name, folder / name)
    results = []
    for command in commands():
        if command.startswith(("make ", "export ")):
            continue
        result = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=clean_environment(**TOKEN, RAY_ADDRESS=ray_address),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        results.append((command, result))
    return folder, results


def test_every_command_of_the_readme_succeeds(played):
    _, results = played
    assert len(results) >= 8
    assert [(command, result.stderr) for command, result in results if result.returncode != 0] == []
    assert sum("nothing is missing" in result.stderr for _, result in results) == 1


def test_the_python_of_the_readme_reads_the_dataset_without_realwork(played):
    folder, _ = played
    code = blocks("python")[0] + "\nimport sys; assert not any(name.startswith('realwork') for name in sys.modules)\n"
    result = subprocess.run(
        [REALWORK.with_name("python"), "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "hello" in result.stdout


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_commands_of_the_readme_exist(target):
    assert f"make {target}" in commands()
    subprocess.run(["make", "-n", target], cwd=REPOSITORY, check=True, capture_output=True, env=dict(os.environ))


def shape(text: str) -> list[str]:
    """The words of what the demo prints, without what differs from run to run: names of runs, paths, seconds."""
    text = re.sub(r"\d{8}-\d{6}-\w{4}", "RUN", text)
    text = re.sub(r"\S*/(?=realwork |run\.json)", "", text)
    text = re.sub(r"\b\d+ min \d+ s\b", "SECONDS s", text)
    return re.sub(r"\b\d+\.\d\b", "SECONDS", text).split()


def test_the_demo_ends_as_the_readme_shows(docker_image, tmp_path):
    result = subprocess.run(
        [REALWORK, "demo"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    shown = next(block for block in blocks("") if "calculator_api_half" in block)
    assert shape(result.stdout) == shape(shown)
    assert Path(tmp_path / "trajectories").is_dir()


def test_the_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    assert all((REPOSITORY / picture).stat().st_size < 100_000 for picture in pictures)
