"""What in a run file may be secret, and how it is hidden from problems, warnings and the rows.

A value counts as secret by the name of its key (`API_KEY`, `token`, `password`), by its look (`sk-..`, `ghp_..`, a
password in a URL), or because it is the key that the model is asked with.
"""

import re
from collections.abc import Iterable, Sequence

from realwork.references import REFERENCE

HIDDEN = "***"
SHORTEST_SECRET = 6

_NAMES = re.compile(
    r"api_?key|secret|passw|passphrase|credential|authorization|bearer|(^|[_-])(key|token|pwd)($|[_-])", re.IGNORECASE
)
_LOOKS = re.compile(
    r"\bsk-[\w-]{16,}|\bgh[a-z]_\w{20,}|\bgithub_pat_\w{20,}|\bhf_\w{20,}|\bAKIA[0-9A-Z]{16}|\bxox[a-z]-[\w-]{10,}"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)(?!\$\{\w+\}@)[^/\s@]+@")
_KEPT = {"api_key", "environment_variables", "environments", "llm_config", "model", "base_url", "id", "-"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_secret_name(name: str) -> bool:
    """Whether a key of that name holds a secret."""
    return bool(_NAMES.search(_CAMEL.sub("_", name)))


def hide_value(names: Sequence[int | str], value: str) -> str:
    """`value` as it may be shown below the keys `names`: a lone `${NAME}` reference stays, secrets become `***`."""
    if any(isinstance(name, str) and is_secret_name(name) for name in names):
        return value if REFERENCE.fullmatch(value) else HIDDEN
    return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", _LOOKS.sub(HIDDEN, value))


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of `secrets`; one that is too short to tell from a word is left."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


def masked_line(lines: Sequence[str], index: int) -> str:
    """`lines[index]` as it may be shown: if it may hold a secret, the words that are no known keys become stars."""
    line = lines[index]
    before = "\n".join(lines[max(0, index - 1) : index])
    in_variables = "}" not in "\n".join(lines[:index]).rpartition("environment_variables")[2]
    mentions_variables = any("environment_variables" in one for one in lines[: index + 1])
    words = re.findall(r"[\w-]+", before + " " + line)
    if not (any(map(is_secret_name, words)) or _LOOKS.search(line) or (in_variables and mentions_variables)):
        return line
    return re.sub(r"[^\s\"':,{}\[\]=]+", lambda word: word[0] if word[0] in _KEPT else "*" * len(word[0]), line)
