"""pytest's settings in files that an agent may well edit: pyproject.toml and setup.cfg.

Guarantees: which tests run, and with which plugins, is what it was before the agent came; everything else in these
files is the agent's. A file in which that cannot be had, or cannot be told, is again as it was. What an agent wrote is
never parsed on the event loop, nor when that could take long.
"""

import asyncio
import json
import posixpath
import re
import shlex
import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from iniconfig import IniConfig, ParseError

from realwork.errors import ArtifactRejected, FileError, GradingError, RealworkError
from realwork.sandbox.base import CommandResult, Sandbox
from realwork.sandbox.files import pack_file

FREE = ("asyncio_default_fixture_loop_scope", "asyncio_mode", "markers", "pythonpath")
"""Settings that decide neither which tests run nor with which plugins, and import nothing."""
EDITED = ("pyproject.toml", "setup.cfg")
OTHERS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "tox.ini")
"""Files with settings that no agent brings, which those that one brings must not hide."""
MOST_BYTES = 8 << 20
"""Of the files before the agent came; of those that it changed; of the list of either."""
COST_BYTES = 16 << 10
"""What a changed file counts for beside its content."""
MOST_PARSED_BYTES = 64 << 10
MOST_DOTS = 300
"""Of a line: a key of so many parts takes tomllib a time that grows with their square."""
LOOK_S = 60.0
_LOOK = "find . -name node_modules -prune -o -name site-packages -prune -o {names} {kind} -print0"
_BLOCKING = 'for path in {paths}; do [ -d "$path" ] && [ ! -L "$path" ] || printf "%s\\0" "$path"; done'
_OUR_TABLE = re.compile(r"""\s*\[+\s*["']?tool["']?\s*\.\s*["']?pytest["']?\s*[.\]]""")
_ANY_HEADER = re.compile(r"\s*\[")
_STRINGS = re.compile(
    r"""^[ \t]*[\w.-]+[ \t]*=[ \t]*(?:"{3}(?:[^"\\]|"(?!""))*"{3}(?!") | '{3}(?:[^']|'(?!''))*'{3}(?!'))
    | (?P<odd>"{3}(?:\\.|[^\\])*?"{3,5} | '{3}.*?'{3,5})
    | "(?:\\.|[^"\\\n])*" | '[^'\n]*' | \#[^\n]*""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""And comments. Of an `odd` one, as in a list, pytest 6 may take lines for lines of the file."""
_SECTION = "tool:pytest"
_OPEN_SECTIONS = ("", "ini_options", _SECTION)
"""Those that may hold what is free."""

Settings = dict[str, dict[str, Any]]


async def read_settings(sandbox: Sandbox, directory: str) -> dict[str, bytes]:
    """The files with settings below `directory`, by path, before anything of the agent's is there.

    Raises:
        GradingError: they cannot be found, or are too large.
    """
    files = {}
    for path in await _look(sandbox, directory, (*EDITED, *OTHERS), GradingError):
        try:
            file = await sandbox.read_file(posixpath.join(directory, path), limit_bytes=MOST_BYTES)
        except FileError:  # neither can pytest
            continue
        files[path] = file.content
        if file.size_bytes > MOST_BYTES or sum(map(len, files.values())) > MOST_BYTES:
            raise GradingError(f"{directory}: files with settings of pytest exceed {MOST_BYTES} bytes, up to {path}")
    return files


async def restore_settings(sandbox: Sandbox, directory: str, pristine: Mapping[str, bytes]) -> None:
    """Give pytest the settings of the `pristine` files again.

    Raises:
        ArtifactRejected: the agent's cannot be found, or those that differ are too large.
    """
    configured = await asyncio.to_thread(_configured, pristine)
    links = set(await _look(sandbox, directory, EDITED, ArtifactRejected, kind="-type l"))
    paths = await _look(sandbox, directory, EDITED, ArtifactRejected)
    for path in sorted(configured.difference(paths)):
        if posixpath.basename(path) in EDITED:
            await _make_way(sandbox, directory, path)
            await _replace(sandbox, posixpath.join(directory, path), pristine[path])
    changed_bytes = 0
    for path in paths:
        before = pristine.get(path)
        content = await _start_of(sandbox, posixpath.join(directory, path), before)
        if content is None or content != before or path in links:
            changed_bytes += COST_BYTES + len(content or b"")
        if changed_bytes > MOST_BYTES:
            raise ArtifactRejected(f"files called {' or '.join(EDITED)} exceed {MOST_BYTES} bytes")
        wanted = before
        if content is not None:
            hides = any(_is_beside_or_below(path, other) for other in configured)
            name = posixpath.basename(path)
            wanted = await asyncio.to_thread(with_settings_of, name, content, before, hides=hides)
        if wanted != content or wanted is None or path in links:
            await _replace(sandbox, posixpath.join(directory, path), wanted)


def with_settings_of(name: str, content: bytes, pristine: bytes | None, *, hides: bool = False) -> bytes | None:
    """`content` of a file of that name with the settings of `pristine`; null when there is to be no such file.

    Args:
        hides: settings that begin in this file would keep pytest from those of another.
    """
    if content == pristine:
        return content
    try:
        own, rest = _parsed(name, content)
        before = _parsed(name, pristine)[0] if pristine is not None else {}
        wanted = _merged(before, own, hides=hides)
        if _exactly(own) == _exactly(wanted) and (name != "setup.cfg" or not own):
            return content
        changed = _rewritten(name, content, wanted)
        return changed if _exactly(_parsed(name, changed)) == _exactly((wanted, rest)) else pristine
    except (ValueError, TypeError, RecursionError):
        return pristine if _may_configure(content) or _may_configure(pristine or b"") else content


def _configured(pristine: Mapping[str, bytes]) -> set[str]:
    """The paths whose files pytest takes settings from, where they are the first it comes across."""
    return {path for path, content in pristine.items() if _has_settings(posixpath.basename(path), content)}


def _has_settings(name: str, content: bytes) -> bool:
    if name in OTHERS:
        return name != "tox.ini" or b"[pytest]" in content
    try:
        return bool(_parsed(name, content)[0])
    except (ValueError, RecursionError):
        return _may_configure(content)


def _may_configure(content: bytes) -> bool:
    """Whether a file that cannot be parsed here may have settings for another parser, if only with escapes."""
    return b"pytest" in content or b"\\" in content


def _is_beside_or_below(path: str, other: str) -> bool:
    return path != other and f"{posixpath.dirname(path)}/".startswith(f"{posixpath.dirname(other)}/")


async def _look(
    sandbox: Sandbox, directory: str, names: Collection[str], error: type[RealworkError], kind: str = "! -type d"
) -> list[str]:
    wanted = " -o ".join(f"-name {shlex.quote(name)}" for name in names)
    command = _LOOK.format(names=f"\\( {wanted} \\)", kind=kind)
    found = await sandbox.execute(command, timeout_s=LOOK_S, working_directory=directory, limit_bytes=MOST_BYTES)
    if found.exit_code != 0 or found.stdout_bytes > MOST_BYTES:
        said = "no end in time" if found.timed_out else found.stderr.decode(errors="replace")[-500:].strip()
        raise error(f"{directory}: find, for settings of pytest: {said or f'more than {MOST_BYTES} bytes of paths'}")
    return _paths(found)


def _paths(found: CommandResult) -> list[str]:
    return [path for path in found.stdout.decode(errors="replace").split("\0") if path]


async def _make_way(sandbox: Sandbox, directory: str, path: str) -> None:
    """Remove what stands where `path` needs folders: a link would lead to a file of another place."""
    names = posixpath.dirname(path).split("/")
    folders = [shlex.quote("/".join(names[:end])) for end in range(2, len(names) + 1)]
    if folders:
        command = _BLOCKING.format(paths=" ".join(folders))
        found = await sandbox.execute(command, timeout_s=LOOK_S, working_directory=directory)
        for folder in _paths(found):
            await sandbox.remove(posixpath.join(directory, folder))


async def _start_of(sandbox: Sandbox, path: str, pristine: bytes | None) -> bytes | None:
    """As much of a file as it takes to tell whether it is the pristine one and small enough; null if unreadable."""
    most = max(MOST_PARSED_BYTES, len(pristine or b"")) + 1
    try:
        return (await sandbox.read_file(path, limit_bytes=most)).content
    except FileError:
        return None


async def _replace(sandbox: Sandbox, path: str, content: bytes | None) -> None:
    await sandbox.remove(path)  # it may be a link
    if content is not None:
        folder, name = posixpath.split(path)
        await sandbox.copy_in(folder, pack_file(name, content))  # as root: the folder may be closed to the user


def _parsed(name: str, content: bytes) -> tuple[Settings, object]:
    """pytest's settings, by section, and all the rest.

    Raises:
        ValueError: it is not such a file, or parsing it could take long.
        RecursionError: it is nested too deeply.
    """
    if len(content) > MOST_PARSED_BYTES:
        raise ValueError("too large")
    if name == "setup.cfg":
        return _parsed_cfg(content.decode())
    return _parsed_toml(_newlines(content.decode()))


def _parsed_toml(text: str) -> tuple[Settings, object]:
    if max((line.count(".") for line in text.split("\n")), default=0) > MOST_DOTS:
        raise ValueError("a key has too many parts")
    rest = tomllib.loads(text)
    if any("\n" in (found["odd"] or "") for found in _STRINGS.finditer(text)):
        raise ValueError("a string that may be more")
    tools = rest.get("tool")
    pytest: Any = tools.pop("pytest", {}) if isinstance(tools, dict) else {}
    if isinstance(tools, dict) and not tools:
        rest.pop("tool")
    if not isinstance(pytest, dict):
        raise ValueError("tool.pytest is no table")
    inner = {key: value for key, value in pytest.items() if isinstance(value, dict)}
    plain = {key: value for key, value in pytest.items() if key not in inner}
    return {**({"": plain} if plain else {}), **inner}, rest


def _parsed_cfg(text: str) -> tuple[Settings, list[str]]:
    """The rest are its lines. By the library with which pytest reads it."""
    try:
        config = IniConfig("setup.cfg", data=text)
    except ParseError as error:
        raise ValueError(str(error)) from error
    lines = text.splitlines()
    starts = {section.name: (config.lineof(section.name) or 0) - 1 for section in config}
    if any(name != _SECTION and name.strip() == _SECTION for name in starts):
        raise ValueError("a section that may be ours")
    if _SECTION not in starts:
        return {}, lines
    begin = starts[_SECTION]
    end = min((start for start in starts.values() if start > begin), default=len(lines))
    return {_SECTION: dict(config[_SECTION].items())}, lines[:begin] + lines[end:]


def _merged(before: Settings, own: Settings, *, hides: bool) -> Settings:
    """The settings of `before`, but those that are free from `own`; of `own` alone where that changes no other."""
    merged = {}
    for section in before if before or hides else own:
        kept = {key: value for key, value in before.get(section, {}).items() if key not in FREE}
        if section in _OPEN_SECTIONS:
            kept |= {key: value for key, value in own.get(section, {}).items() if key in FREE}
        if kept or section in before:
            merged[section] = kept
    return merged


def _exactly(value: object) -> str:
    """The same text for the same values, of the same types, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, default=lambda other: {type(other).__name__: repr(other)})


def _rewritten(name: str, content: bytes, settings: Settings) -> bytes:
    if name == "setup.cfg":
        lines = _parsed_cfg(content.decode())[1]
    else:
        lines = _without_our_tables(_newlines(content.decode()).removesuffix("\n").split("\n"))
    return ("\n".join([*lines, *_written(name, settings)]) + "\n").encode()


def _newlines(text: str) -> str:
    """As pytest opens a file."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_our_tables(lines: list[str]) -> list[str]:
    kept, is_ours = [], False
    for line in lines:
        if _ANY_HEADER.match(line):
            is_ours = bool(_OUR_TABLE.match(line))
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
            lines += [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return lines


def _indented(value: str) -> str:
    return value.replace("\n", "\n    ")
