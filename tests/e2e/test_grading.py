"""Rewards as the command line gives them: for the solution, for nothing, and for a cheat, in both modes of grading."""

import shutil
import subprocess

import pytest

from tests.endpoint import DONE, Endpoint, run

from .command import environment, realwork, rows, run_file

TESTS = "from work import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"
SOLVED = """diff --git a/work.py b/work.py
--- a/work.py
+++ b/work.py
@@ -1 +1 @@
-def add(a, b): pass
+def add(a, b): return a + b
"""
CHEATED = """diff --git a/tests/test_work.py b/tests/test_work.py
--- a/tests/test_work.py
+++ b/tests/test_work.py
@@ -1,4 +1 @@
-from work import add
-
-def test_add():
-    assert add(1, 2) == 3
+def test_add(): pass
diff --git a/work.py b/work.py
--- a/work.py
+++ b/work.py
@@ -1 +1 @@
-def add(a, b): pass
+import os; os._exit(0)
"""
AGENTS = {
    "oracle": "echo 'def add(a, b): return a + b' >work.py; touch /etc/elsewhere",
    "nop": "true",
    "cheat": "echo 'def test_add(): pass' >tests/test_work.py; echo 'import os; os._exit(0)' >work.py",
}


def act(request):
    is_first = not any(message["role"] == "assistant" for message in request["messages"])
    return run(AGENTS[request["messages"][-1]["content"].splitlines()[-1]]) if is_first else DONE


@pytest.fixture
def task(tmp_path):
    """A folder with a test of a function, and a file that lacks it."""
    folder = tmp_path / "task"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_work.py").write_text(TESTS)
    return folder


def test_the_solution_is_worth_1_and_nothing_and_a_cheat_0_in_both_modes(docker_image, task, tmp_path):
    common = {"copy_folders": ["task/tests"], "init_commands": ["echo 'def add(a, b): pass' >work.py"]}
    common |= {"init_network": "none", "unit_tests": [{"command": "python3 -m pytest -q tests", "expected_tests": 1}]}
    environments = [
        environment(f"{agent}-{mode}", prompt=agent, grading_config={"mode": mode}, **common)
        for agent in AGENTS
        for mode in ("fresh", "same")
    ]
    with Endpoint(act) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, environments=environments)
        result = realwork("run", file, "--run-id", "graded", "--no-ray", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = {row["environment_id"]: row for row in rows(tmp_path / "out" / "graded")}
    assert {name: (row["reward"], row["success"], row["reward_valid"]) for name, row in found.items()} == {
        f"{agent}-{mode}": (reward, reward == 1.0, True)
        for agent, reward in {"oracle": 1.0, "nop": 0.0, "cheat": 0.0}.items()
        for mode in ("fresh", "same")
    }
    shown = realwork("show", tmp_path / "out" / "graded", "graded:oracle-fresh", cwd=tmp_path).stdout
    assert "1 file changed outside the working directory, where no test saw them" in shown
    assert {name: row["final_diff"] for name, row in found.items()} == {
        f"{agent}-{mode}": diff
        for agent, diff in {"oracle": SOLVED, "nop": "", "cheat": CHEATED}.items()
        for mode in ("fresh", "same")
    }
    assert "+def add(a, b): return a + b" in shown
    assert {name: row["grading_mode"] for name, row in found.items()} == {
        name: name.rpartition("-")[2] for name in found
    }


def test_every_test_command_may_write_beside_the_tests_as_the_user_of_the_sandbox(docker_image, task, tmp_path):
    commands = [f"test $(id -u) = 65534 && echo x >tests/new-{number}" for number in range(3)]
    environments = [
        environment(mode, copy_folders=["task/tests"], unit_tests=commands, grading_config={"mode": mode})
        for mode in ("fresh", "same")
    ]
    with Endpoint(lambda _: DONE) as endpoint:
        limits = {"memory_mib": 256, "user": "nobody"}
        file = run_file(tmp_path, endpoint.base_url, environments=environments, sandbox_config=limits)
        result = realwork("run", file, "--run-id", "written", "--no-ray", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [row["reward"] for row in rows(tmp_path / "out" / "written")] == [1.0, 1.0]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")
def test_check_warns_of_a_solution_in_the_history_of_a_copied_folder(docker_image, task, tmp_path):
    for arguments in (
        ("init", "-q"),
        ("add", "-A"),
        ("commit", "-qm", "the task"),
        ("commit", "-qm", "the solution", "--allow-empty"),
        ("reset", "-q", "--hard", "HEAD~1"),
    ):
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=task, check=True)
    file = run_file(tmp_path, environments=[environment("e", copy_folders=["task"])])
    result = realwork("check", file, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "ok:" in result.stdout
    assert "task is copied into the sandbox with a commit beyond its HEAD" in result.stderr
    assert "the solution'" in result.stderr
