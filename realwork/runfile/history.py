"""Looks into copied folders for git history that gives the solution away.

Guarantees: nothing in a folder is changed, and nothing that its settings name is run; where there is no git, or it
does not answer, nothing is said.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from realwork.runfile.checks import Folders

GIT_S = 60.0
_SKIPPED = {"node_modules", "site-packages"}


def history_warnings(folders: Mapping[str, Folders]) -> list[str]:
    """One sentence for each repository in a copied folder that holds commits which are no ancestors of its HEAD."""
    if shutil.which("git") is None:
        return []
    copied = dict.fromkeys(folder for each in folders.values() for folder in each.copied)
    return [warning for folder in copied for place in _repositories(folder) if (warning := _warning(place))]


def _repositories(folder: Path) -> list[Path]:
    found = []
    for place, names, _ in os.walk(folder):
        if ".git" in names:
            found.append(Path(place))
        names[:] = [name for name in names if name not in _SKIPPED | {".git"}]
    return found


def _warning(place: Path) -> str | None:
    known = _git(place, "rev-list", "HEAD")
    objects = _git(place, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)")
    if known is None or objects is None:
        return None
    commits = {line.removeprefix("commit ") for line in objects.splitlines() if line.startswith("commit ")}
    others = sorted(commits - set(known.split()))
    if not others:
        return None
    newest = (_git(place, "rev-list", "--no-walk=sorted", "--max-count=1", *others[:1000]) or others[0]).strip()
    subject = (_git(place, "cat-file", "commit", newest) or "").partition("\n\n")[2].partition("\n")[0]
    count = "a commit" if len(others) == 1 else f"{len(others)} commits"
    return (
        f"{place} is copied into the sandbox with {count} beyond its HEAD, which the agent can read with git (such as "
        f"'{newest[:7]} {subject}'). If they give the solution away, copy a clone that holds HEAD alone: "
        f"git clone --no-local --single-branch --no-tags {place} NEW"
    )


def _git(place: Path, *arguments: str) -> str | None:
    """What git says in the repository at `place`; null if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=", "-C", str(place), *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
