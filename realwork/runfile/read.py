"""Reads the text of a run file, JSON, YAML or TOML by its suffix, into plain values.

Guarantees: what comes back is made of objects with text keys, lists, text, numbers, booleans and null; anything else is
named in `problems` and stands as `Unusable.VALUE`. A line that is shown never shows what may be secret.
"""

import json
import math
import re
import tomllib
from collections.abc import Hashable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from realwork.errors import InputError
from realwork.runfile.secrets import masked_line

Loc = tuple[int | str, ...]
MOST_LEVELS = 100
LARGEST_INTEGER = 2**63 - 1
SHOWN_CHARACTERS = 100


class Unusable(Enum):
    """Stands where a value was that has been named as a problem already."""

    VALUE = "unusable"


class Source(NamedTuple):
    """The content of a run file.

    Attributes:
        problems: what is wrong with single values; they stand as `Unusable.VALUE` in `data`.
        is_yaml: whether YAML's surprises are worth a hint.
    """

    data: dict[str, Any]
    problems: list[str]
    is_yaml: bool


def place(loc: Sequence[int | str], start: str = "") -> str:
    """`("environments", 0, "id")` as `environments[0].id`, after `start`."""
    text = start
    for part in loc:
        if isinstance(part, int) or not re.fullmatch(r"[\w-]+", part):
            text += f"[{json.dumps(part)}]"
        else:
            text += f".{part}" if text else part
    return text


def read_source(path: Path) -> Source:
    """The content of the run file at `path`.

    Raises:
        InputError: there is no such file, it cannot be read or parsed, or it is no object; one problem.
    """
    text = _read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    is_yaml = suffix in (".yaml", ".yml")
    problems: list[str] = []
    try:
        if is_yaml:
            data = _parse_yaml(path, text, problems)
        elif suffix == ".toml":
            data = _parse_toml(path, text)
        else:
            data = _parse_json(path, text, problems)
        if not isinstance(data, dict):
            raise InputError(f"{path}: expected an object with the key 'environments', found {kind_of(data)}")
        plain = _plain(data, (), problems, [])
    except RecursionError:
        raise InputError(f"{path}: the file is nested too deeply") from None
    return Source(plain, problems, is_yaml)


def kind_of(value: object) -> str:
    """What a value is, in the words of the file."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file (looked at {path.absolute()})") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; a run file is expected, such as {path / 'run.json'}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    except ValueError:
        raise InputError("the path of the run file contains a NUL character") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: the file is not UTF-8; save it as UTF-8") from None


def _syntax_error(path: Path, text: str, what: str, line: int, column: int) -> InputError:
    """`line` and `column` count from 1; the line is shown with a caret."""
    lines = text.splitlines() or [""]
    shown = masked_line(lines, min(line, len(lines)) - 1)
    start = max(0, min(column - 1, len(shown)) - SHOWN_CHARACTERS // 2)
    window = shown[start : start + SHOWN_CHARACTERS].replace("\t", " ")
    caret = " " * (min(column - 1, len(shown)) - start) + "^"
    return InputError(f"{path}: line {line}, column {column}: {what}\n    {window}\n    {caret}")


def _parse_json(path: Path, text: str, problems: list[str]) -> Any:
    twice: list[tuple[dict[str, Any], str]] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key, value in pairs:
            if key in built:
                twice.append((built, key))
            built[key] = value
        return built

    try:
        data = json.loads(text, object_pairs_hook=build)
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, error.pos) + 1
        column = error.pos - (text.rfind("\n", 0, error.pos) + 1) + 1
        raise _syntax_error(path, text, f"invalid JSON: {error.msg}", line, column) from None
    except ValueError:
        raise InputError(f"{path}: invalid JSON: a number has too many digits") from None
    if twice:
        places = {id(value): loc for value, loc in _objects(data, ())}
        for holder, key in twice:
            problems.append(f"{place((*places.get(id(holder), ()), key))}: the key stands there twice")
    return data


def _objects(value: Any, loc: Loc) -> list[tuple[dict[str, Any], Loc]]:
    match value:
        case dict():
            return [(value, loc), *(found for key, one in value.items() for found in _objects(one, (*loc, key)))]
        case list():
            return [found for index, one in enumerate(value) for found in _objects(one, (*loc, index))]
        case _:
            return []


class _Loader(yaml.SafeLoader):
    """The safe loader, which also notes keys that stand twice."""

    def __init__(self, text: str, problems: list[str]) -> None:
        super().__init__(text)
        self._problems = problems

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                self._problems.append(f"line {key.start_mark.line + 1}: the key '{key.value}' stands there twice")
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(path: Path, text: str, problems: list[str]) -> Any:
    try:
        return _Loader(text, problems).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = re.sub(r"(alias|anchor|tag) '.*?'", r"\1", error.problem or "it cannot be parsed")
        raise _syntax_error(
            path, text, f"invalid YAML: {what}", mark.line + 1 if mark else 1, mark.column + 1 if mark else 1
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}: line {line}: invalid YAML: it contains a control character") from None
    except (ValueError, LookupError, AttributeError, TypeError):
        raise InputError(f"{path}: invalid YAML: a value does not fit its tag, or a date does not exist") from None


def _parse_toml(path: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        numbers = re.findall(r"\d+", where)
        line, column = (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (text.count("\n") + 1, 1)
        raise _syntax_error(path, text, f"invalid TOML: {what}", line, column) from None
    except ValueError:
        raise InputError(f"{path}: invalid TOML: a number or date is out of range") from None


def _plain(value: Any, loc: Loc, problems: list[str], above: list[int]) -> Any:
    """A copy of `value` in which every value that JSON could not hold is replaced and named."""
    if isinstance(value, dict | list) and (id(value) in above or len(above) >= MOST_LEVELS):
        problems.append(f"{place(loc)}: it is nested too deeply, or contains itself")
        return Unusable.VALUE
    match value:
        case dict():
            named = {key: one for key, one in value.items() if isinstance(key, str) and _is_text(key)}
            problems.extend(_key_problem(key, loc) for key in value if key not in named)
            return {key: _plain(one, (*loc, key), problems, [*above, id(value)]) for key, one in named.items()}
        case list():
            return [_plain(one, (*loc, index), problems, [*above, id(value)]) for index, one in enumerate(value)]
        case str() if not _is_text(value):
            problems.append(f"{place(loc)}: the text contains half of a character (a lone surrogate)")
        case float() if not math.isfinite(value):
            problems.append(f"{place(loc)}: expected a finite number, found {json.dumps(value)}")
        case int() if abs(value) > LARGEST_INTEGER:
            problems.append(f"{place(loc)}: the number has too many digits")
        case None | bool() | int() | float() | str():
            return value
        case _:
            problems.append(f"{place(loc)}: expected JSON values, found a {type(value).__name__}: put it in quotes")
    return Unusable.VALUE


def _is_text(value: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", value)


def _key_problem(key: object, loc: Loc) -> str:
    hint = " In YAML, on, off, yes and no mean true and false." if isinstance(key, bool) else ""
    where = place(loc) or "the file"
    if isinstance(key, str):
        return f"{where}: a key contains half of a character (a lone surrogate)"
    return f"{where}: a key is {kind_of(key)}, not text: put it in quotes.{hint}"
