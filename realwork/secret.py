"""The key of the endpoint: where it comes from, and the type that keeps it.

Guarantees: a secret shows in no `repr`, and neither pickles nor dumps; what travels is where to find it.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from realwork.errors import ModelRefused
from realwork.references import replace_references
from realwork.types import Record

FILE_PREFIX = "file:"
NO_KEY = "EMPTY"
"""What servers without a key are asked with: the client wants one."""


class Secret(SecretStr):
    """A text that stays in its process; `get_secret_value()` tells it."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a secret does not leave its process")


class KeySource(Record):
    """Where a process finds the key.

    Attributes:
        kind: in an environment variable or a file of its node; given to it; or it needs none.
        name: of the variable, or the absolute path.
    """

    kind: Literal["variable", "file", "given", "none"] = "none"
    name: str = ""


def read_key(source: KeySource, given: Secret | None, environ: Mapping[str, str]) -> Secret:
    """The key as it is to be found in this process.

    Raises:
        ModelRefused: there is none.
    """
    match source.kind:
        case "none":
            return Secret(NO_KEY)
        case "given" if given is not None:
            return given
        case "variable" if environ.get(source.name, "").strip():
            return Secret(_line(environ[source.name], source.name))
        case "file":
            return _read_file(Path(source.name))
    raise ModelRefused(
        f"the key is not on node {platform.node()}: {source.name or 'it'} is not set in Ray's processes there. Set it "
        f"before `ray start`, name a file that every node has (llm_config.api_key = '{FILE_PREFIX}/path'), or give "
        "--llm-api-key."
    )


def _read_file(path: Path) -> Secret:
    try:
        return Secret(_line(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeError) as error:
        raise ModelRefused(f"the key cannot be read from {path} on node {platform.node()}: {error}") from error


def read_headers(headers: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """`headers` with their references replaced by what is set in this process.

    Raises:
        ModelRefused: a variable is not set.
    """
    found = {}
    for name, text in headers.items():
        found[name], unset = replace_references(text, environ)
        if unset:
            where = f"Ray's processes on node {platform.node()}"
            raise ModelRefused(f"llm_config.headers: {unset[0]} is not set in {where}; set it before `ray start` there")
        found[name] = _line(found[name], f"llm_config.headers.{name}")
    return found


def _line(text: str, name: str) -> str:
    """`text` without white space at its ends.

    Raises:
        ModelRefused: no header may hold what is left.
    """
    text = text.strip()
    if not text.isprintable():
        raise ModelRefused(f"{name} on node {platform.node()} holds a line break or a control character")
    return text
