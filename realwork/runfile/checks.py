"""Checks of a run file against this machine: folders, the script of the scripted model, the output directory.

Each notes its problems in the draft, changes nothing on disk, and skips what is known to be wrong already.
"""

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from realwork.config import SCRIPTED_PREFIX, RunConfig, is_url
from realwork.errors import InputError
from realwork.model.scripted import load_script
from realwork.runfile.draft import Draft
from realwork.types import Record


class Folders(Record):
    """The folders of one environment, absolute."""

    copied: tuple[Path, ...] = ()
    for_tests: tuple[Path, ...] = ()


def find_folders(draft: Draft, config: RunConfig, base: Path) -> dict[str, Folders]:
    """The absolute folders of each environment, those of both kinds in their order.

    Args:
        base: the run file's folder; the current one comes after it.
    """
    found: dict[str, Folders] = {}
    for number, environment in enumerate(config.environments):
        taken: dict[str, Path] = {}
        kinds: dict[str, tuple[Path, ...]] = {}
        for kind, names in (("copy_folders", environment.copy_folders), ("test_folders", environment.test_folders)):
            before = len(taken)
            for index, written in enumerate(names):
                _take_folder(draft, ("environments", number, kind, index), written, base, taken)
            kinds[kind] = tuple(taken.values())[before:]
        found[environment.id] = Folders(copied=kinds["copy_folders"], for_tests=kinds["test_folders"])
        _check_restaged(draft, config, number, {folder.name for folder in found[environment.id].copied})
    return found


def _take_folder(draft: Draft, loc: tuple[str | int, ...], written: str, base: Path, taken: dict[str, Path]) -> None:
    if draft.is_bad(*loc):
        return
    folder = _find(written, (base, Path.cwd()), Path.is_dir)
    problem = _folder_problem(written, folder, base, taken=taken)
    if problem:
        draft.complain(loc, problem)
    elif folder:
        taken[folder.name] = folder


def _check_restaged(draft: Draft, config: RunConfig, number: int, copied: set[str]) -> None:
    """Complain about names in `restage_folders` that are no copied folder, and about a root that none can get."""
    environment = config.environments[number]
    own = environment.grading_config
    place: tuple[str | int, ...] = ("environments", number, "grading_config") if own else ("grading_config",)
    for name in (own.restage_folders if own else None) or ():
        if name not in copied:
            known = ", ".join(sorted(copied)) or "there is none"
            draft.complain((*place, "restage_folders"), f"'{name}' is no copied folder ({known})")
    top, _, below = posixpath.normpath(environment.working_directory).strip("/").partition("/")
    is_of_the_engine = top in ("dev", "proc", "sys") or (top in ("", "etc") and not below)
    if config.grading(environment).mode == "fresh" and is_of_the_engine:
        draft.complain(
            ("environments", number, "working_directory"),
            f"tests in a fresh sandbox get the working directory, which cannot be '{environment.working_directory}'; "
            'name another one, or set grading_config.mode to "same"',
        )


def restaging_warnings(config: RunConfig) -> list[str]:
    """One sentence for each environment whose copied folders are all put back for the tests without being named."""
    return [
        f"environments[{number}].copy_folders: for the tests they are put back as they were, so what the agent changes "
        "there counts for nothing. List in grading_config.restage_folders those that it is not to change ([] for none)."
        for number, environment in enumerate(config.environments)
        if environment.copy_folders and config.grading(environment).restage_folders is None
    ]


def _folder_problem(written: str, folder: Path | None, base: Path, *, taken: Mapping[str, Path]) -> str | None:
    if folder is None:
        a_file = _find(written, (base, Path.cwd()), Path.exists)
        if a_file:
            return f"'{written}' is a file ({a_file}); a folder is expected"
        return f"there is no folder '{written}'; looked at {_places(written, (base, Path.cwd()))}"
    if not folder.name:
        return f"'{written}' has no name of its own to be copied to"
    if folder.name in taken:
        return f"'{written}' would be copied to the same place as {taken[folder.name]}: both are called '{folder.name}'"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"the folder {folder} cannot be read; give this user the permission to"
    return None


def find_script(draft: Draft, config: RunConfig, base: Path) -> str:
    """The model's name; for `scripted:FILE` with the absolute path of a script that can be played."""
    llm = config.llm_config
    loc = ("llm_config", "model")
    if not llm.is_scripted or draft.is_bad(*loc):
        return llm.model
    written = llm.model.removeprefix(SCRIPTED_PREFIX)
    places = (Path.cwd(), base) if draft.is_flag(*loc) else (base, Path.cwd())
    if not written.strip():
        draft.complain(loc, "a file is expected after 'scripted:'")
        return llm.model
    path = _find(written, places, Path.is_file)
    if path is None:
        draft.complain(loc, f"there is no script '{written}'; looked at {_places(written, places)}")
        return llm.model
    try:
        script = load_script(path)
    except InputError as error:
        for problem in error.problems:
            draft.complain(loc, problem)
        return llm.model
    known = {one.id for one in config.environments}
    strangers = [name for name in script if name not in known] if isinstance(script, dict) else []
    draft.warnings.extend(
        f"{draft.place(*loc)}: {path} has replies for '{name}', which is no environment" for name in strangers
    )
    return f"{SCRIPTED_PREFIX}{path}"


def check_output(path: Path) -> list[str]:
    """What keeps a run from writing below the directory `path`, one sentence each; nothing is created."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        return [f"'{path}' is a URL that cannot be used here; name a directory that the driver's node can write"]
    at = _absolute(path)
    for existing in (at, *at.parents):
        if not _is(existing, lambda one: one.exists() or one.is_symlink()):
            continue
        if not _is(existing, Path.is_dir):
            return [f"{at} cannot be a directory: {existing} is a file. Move it, or name another directory."]
        if _is(existing, lambda one: bool(os.statvfs(one).f_flag & os.ST_RDONLY)):
            return [f"{at} cannot be written: {existing} is on a read-only file system. Name another directory."]
        if not os.access(existing, os.W_OK | os.X_OK):
            what = "written" if existing == at else "created"
            return [f"{at} cannot be {what}: no permission to write into {existing}. Name another directory."]
        return []
    return [f"{at} cannot be created: none of its parents can be seen. Name another directory."]


def check_output_of(draft: Draft, config: RunConfig) -> str:
    """The absolute output directory of `config`, its problems noted."""
    written, loc = config.rollout_config.trajectory_output_path, ("rollout_config", "trajectory_output_path")
    if draft.is_bad(*loc):
        return written
    if is_url(written):
        if "@" in written:
            draft.complain(loc, "a key in the URL would stand in run.json; give it in the environment or a profile")
        return written.rstrip("/")
    for problem in check_output(Path(written)):
        draft.complain(loc, problem)
    return str(_absolute(Path(written)))


def _absolute(path: Path, base: Path | None = None) -> Path:
    """`path` below `base` or the current folder, without `..`; `~` is the home, where there is one."""
    with suppress(RuntimeError):
        path = path.expanduser()
    return Path(os.path.normpath((base or Path.cwd()) / path))


def _find(written: str, places: tuple[Path, ...], is_it: Callable[[Path], bool]) -> Path | None:
    paths = (_absolute(Path(written), one) for one in places)
    return next((path for path in paths if _is(path, is_it)), None)


def _places(written: str, places: tuple[Path, ...]) -> str:
    return " and ".join(dict.fromkeys(str(_absolute(Path(written), one)) for one in places))


def _is(path: Path, is_it: Callable[[Path], bool]) -> bool:
    try:
        return is_it(path)
    except (OSError, ValueError):
        return False
