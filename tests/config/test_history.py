"""Copied folders whose git history gives the solution away (A37)."""

import os
import shutil
import subprocess

import pytest

from realwork.runfile.checks import Folders
from realwork.runfile.history import history_warnings

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "task"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "the task")
    return folder


def git(folder, *arguments):
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = {
        f"GIT_{who}_{what}": f"{what.lower()}@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | identity | names, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder, message):
    git(folder, "commit", "-q", "--allow-empty", "-m", message)


def warnings(*copied, for_tests=()):
    return history_warnings({"e": Folders(copied=copied, for_tests=for_tests)})


def test_a_repository_that_ends_at_its_head_is_fine(repository):
    commit(repository, "more of the task")
    assert warnings(repository) == []


@pytest.mark.parametrize("keeping", ["branch", "tag", "remote", "nothing"])
def test_commits_beyond_the_head_are_found_whatever_still_names_them(repository, keeping):
    commit(repository, "the solution")
    where = {"branch": "refs/heads/fix", "tag": "refs/tags/v2", "remote": "refs/remotes/origin/main"}.get(keeping)
    if where:
        git(repository, "update-ref", where, "HEAD")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    git(repository, "reflog", "expire", "--expire=now", "--all")
    (warning,) = warnings(repository)
    assert f"{repository} is copied into the sandbox with a commit beyond its HEAD" in warning
    assert "the solution'" in warning
    assert "git clone --no-local --single-branch --no-tags" in warning


def test_the_advice_helps(repository, tmp_path):
    commit(repository, "the solution")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    (warning,) = warnings(repository)
    command = warning.partition("alone: ")[2].removesuffix("NEW") + str(tmp_path / "new")
    subprocess.run(command.split(), check=True, capture_output=True)
    assert warnings(tmp_path / "new") == []


def test_a_repository_deep_in_a_folder_is_looked_at_too_and_once(repository, tmp_path):
    commit(repository, "the solution")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    assert len(warnings(tmp_path, tmp_path)) == 1


def test_folders_for_tests_alone_may_hold_what_they_like(repository):
    commit(repository, "the solution")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    assert warnings(for_tests=(repository,)) == []


def test_nothing_that_the_settings_of_a_repository_name_is_run(repository, tmp_path):
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    commit(repository, "the solution")
    content = git(repository, "cat-file", "commit", "HEAD").replace("\n\n", "\ngpgsig -----BEGIN\n\n", 1)
    signed = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repository, input=content + "\n", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    git(repository, "update-ref", "refs/heads/signed", signed)
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    for name, value in {
        "log.showSignature": "true",
        "gpg.program": program,
        "core.fsmonitor": program,
        "core.pager": program,
    }.items():
        git(repository, "config", name, str(value))
    (warning,) = warnings(repository)
    assert "2 commits beyond its HEAD" in warning
    assert "the solution'" in warning
    assert not ran.exists()


def test_what_is_no_repository_is_passed_over(tmp_path):
    (tmp_path / ".git").mkdir()
    assert warnings(tmp_path) == []


def test_without_git_nothing_is_said(repository, monkeypatch):
    commit(repository, "the solution")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    monkeypatch.setenv("PATH", "/nowhere")
    assert warnings(repository) == []
