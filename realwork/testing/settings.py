"""pytest's settings in files that an agent may well edit: pyproject.toml and setup.cfg.

Guarantees: which tests run, and with which plugins, is what it was before the agent came; everything else in these
files is the agent's. A file in which that cannot be had is again as it was.
"""

import configparser
import json
import posixpath
import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

from realwork.errors import ArtifactRejected, FileError
from realwork.sandbox.base import Sandbox

FREE = ("asyncio_default_fixture_loop_scope", "asyncio_mode", "filterwarnings", "markers", "pythonpath")
"""Settings that decide neither which tests run nor with which plugins."""
MOST_FILES = 200
MOST_BYTES = 1 << 20
LOOK_S = 60.0
_LOOK = "find . -name node_modules -prune -o -name site-packages -prune -o {names} ! -type d -print0"
_HEADERS = {
    "pyproject.toml": re.compile(r"""\s*\[+\s*["']?tool["']?\s*\.\s*["']?pytest["']?\s*[.\]]"""),
    "setup.cfg": re.compile(r"\[tool:pytest\]"),
}
_ANY_HEADER = re.compile(r"\s*\[")
_SECTION = "tool:pytest"

Settings = dict[str, Any]


async def read_settings(sandbox: Sandbox, directory: str) -> dict[str, bytes]:
    """The files with settings below `directory`, by path.

    Raises:
        ArtifactRejected: there are too many, or one is too large.
    """
    names = " ".join(["\\(", " -o ".join(f"-name {shlex.quote(name)}" for name in _HEADERS), "\\)"])
    found = await sandbox.execute(
        _LOOK.format(names=names), timeout_s=LOOK_S, working_directory=directory, limit_bytes=MOST_BYTES
    )
    paths = [path for path in found.stdout.decode(errors="replace").split("\0") if path]
    if len(paths) > MOST_FILES or found.stdout_bytes > MOST_BYTES:
        raise ArtifactRejected(f"{len(paths)} files are called {' or '.join(_HEADERS)}")
    files = {}
    for path in paths:
        try:
            file = await sandbox.read_file(posixpath.join(directory, path), limit_bytes=MOST_BYTES)
        except FileError:  # neither can pytest
            continue
        if file.size_bytes > MOST_BYTES:
            raise ArtifactRejected(f"{path} has {file.size_bytes} bytes")
        files[path] = file.content
    return files


async def restore_settings(sandbox: Sandbox, directory: str, pristine: Mapping[str, bytes]) -> None:
    """Give pytest the settings of the `pristine` files again.

    Raises:
        ArtifactRejected: as `read_settings`.
    """
    for path, content in (await read_settings(sandbox, directory)).items():
        wanted = with_settings_of(posixpath.basename(path), content, pristine.get(path))
        if wanted is None:
            await sandbox.remove(posixpath.join(directory, path))
        elif wanted != content:
            await sandbox.remove(posixpath.join(directory, path))  # it may be a link
            await sandbox.write_file(posixpath.join(directory, path), wanted)


def with_settings_of(name: str, content: bytes, pristine: bytes | None) -> bytes | None:
    """`content` of a file of that name with the settings of `pristine`; null when there is to be no such file."""
    try:
        own, rest = _parsed(name, content)
    except ValueError:
        return content  # pytest will not take it either
    try:
        before = _parsed(name, pristine)[0] if pristine is not None else {}
    except ValueError:
        before = {}
    wanted = _merged(before, own)
    if wanted == own:
        return content
    lines = [*_without(_HEADERS[name], content.decode().splitlines()), *_written(name, wanted)]
    changed = ("\n".join(lines) + "\n").encode()
    try:
        return changed if _parsed(name, changed) == (wanted, rest) else pristine
    except ValueError:
        return pristine


def _parsed(name: str, content: bytes) -> tuple[Settings, Settings]:
    """pytest's settings, by section, and all others.

    Raises:
        ValueError: it is not such a file.
    """
    if name == "setup.cfg":
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(content.decode())
        except configparser.Error as error:
            raise ValueError(str(error)) from error
        rest = {section: dict(parser[section]) for section in parser if section != _SECTION}
        return ({_SECTION: dict(parser[_SECTION])} if parser.has_section(_SECTION) else {}), rest
    rest = tomllib.loads(content.decode())
    tools = rest.get("tool")
    pytest: Any = tools.pop("pytest", {}) if isinstance(tools, dict) else {}
    if isinstance(tools, dict) and not tools:
        rest.pop("tool")
    if not isinstance(pytest, dict):
        raise ValueError("tool.pytest is no table")
    inner = {key: value for key, value in pytest.items() if isinstance(value, dict)}
    plain = {key: value for key, value in pytest.items() if key not in inner}
    return {**({"": plain} if plain else {}), **{key: value for key, value in inner.items() if value}}, rest


def _merged(before: Settings, own: Settings) -> Settings:
    """The settings of `before` in every section, but those that are free from `own`."""
    merged = {}
    for section in {**before, **own}:
        kept = {key: value for key, value in before.get(section, {}).items() if key not in FREE}
        merged[section] = kept | {key: value for key, value in own.get(section, {}).items() if key in FREE}
    return {section: settings for section, settings in merged.items() if settings}


def _without(header: re.Pattern[str], lines: list[str]) -> list[str]:
    kept, is_ours = [], False
    for line in lines:
        if _ANY_HEADER.match(line):
            is_ours = bool(header.match(line))
        if not is_ours:
            kept.append(line)
    return kept


def _written(name: str, settings: Settings) -> list[str]:
    lines: list[str] = []
    for section, values in settings.items():
        if name == "setup.cfg":
            lines += [f"[{_SECTION}]", *(f"{key} = {_indented(value)}" for key, value in values.items())]
        else:
            lines += [f"[tool.pytest{'.' if section else ''}{section}]"]
            lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items()]
    return lines


def _indented(value: str) -> str:
    return value.replace("\n", "\n    ")
