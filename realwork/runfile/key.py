"""The key of a run file, and where other processes find it; each problem is noted in the draft."""

import ipaddress
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from realwork.config import LlmConfig, RunConfig
from realwork.references import REFERENCE, replace_references
from realwork.runfile.draft import PLACEHOLDER_KEY, Draft
from realwork.secret import FILE_PREFIX, KeySource, Secret

OPENROUTER_KEY = "OPENROUTER_API_KEY"
KEY_VARIABLES = (OPENROUTER_KEY, "OPENAI_API_KEY")


class FoundKey(NamedTuple):
    """The key, and where other processes find it."""

    secret: Secret
    source: KeySource


def find_key(draft: Draft, config: RunConfig, *, needs_key: bool) -> FoundKey | None:
    """The key that the endpoint is asked with; none for the scripted model, and for an endpoint on this machine.

    The one written (a flag wins over the file), else the first of `KEY_VARIABLES` that is set. An unset reference,
    blank text and `your-api-key-here` count as nothing written.
    """
    llm, environ = config.llm_config, draft.environ
    written = llm.api_key.get_secret_value() if llm.api_key else ""
    if written.startswith(FILE_PREFIX):
        value, unset = _read_key_file(draft, written.removeprefix(FILE_PREFIX)), list[str]()
    else:
        value, unset = replace_references(written, environ)
    key = "" if unset else _usable(value)
    source, found = "llm_config.api_key", _source(written)
    if key and found.kind == "given":
        draft.secrets.add(written)
        draft.warnings.append(_literal_warning(is_flag=draft.is_flag("llm_config", "api_key")))
    for name in KEY_VARIABLES:
        draft.secrets.add(_usable(environ.get(name, "")))
        if not key:
            source, found, key = name, KeySource(kind="variable", name=name), _usable(environ.get(name, ""))
    draft.secrets.add(key)
    if llm.is_scripted:
        return None
    if not re.fullmatch(r"[!-~]*", key):
        draft.complain(("llm_config", "api_key"), f"the key of {source} contains spaces or characters no key can have")
    if key and unset:
        draft.warnings.append(
            f"llm_config.api_key: {' and '.join(unset)} is not set; the key of {source} is used instead"
        )
    if key:
        _warn_of_strangers(draft, llm, source)
        is_elsewhere = found.kind == "variable" and os.environ.get(found.name, "").strip() != key
        return FoundKey(Secret(key), KeySource(kind="given") if is_elsewhere else found)
    if any(draft.is_bad("llm_config", name) for name in ("api_key", "model", "base_url")):
        return None
    _complain_of_no_key(draft, llm, value, unset, needs_key=needs_key)
    return None


def _warn_of_strangers(draft: Draft, llm: LlmConfig, source: str) -> None:
    """Say who else gets the key of OpenRouter, where no run file has said that it shall."""
    hosts = [urlsplit(each).hostname or "" for each in llm.replicas if not _is_loopback(each)]
    others = [host for host in hosts if not f".{host}".endswith(".openrouter.ai")]
    if source == OPENROUTER_KEY and others:
        draft.warnings.append(
            f"llm_config.api_key: none is given, so {others[0]} gets the key of {source}; name the one that is meant"
        )


def _complain_of_no_key(draft: Draft, llm: LlmConfig, value: str, unset: list[str], *, needs_key: bool) -> None:
    """Say that there is no key, unless nobody wants one."""
    if not all(map(_is_loopback, llm.replicas)):
        if needs_key:
            draft.complain(("llm_config", "api_key"), _no_key(value, unset))
    elif unset:
        names = " and ".join(unset)
        draft.warnings.append(f"llm_config.api_key: {names} is not set; the endpoint is asked without a key")


def _source(written: str) -> KeySource:
    """Where a key is to be found that was written like this."""
    reference = REFERENCE.fullmatch(written)
    if reference:
        return KeySource(kind="variable", name=reference[1])
    if written.startswith(FILE_PREFIX):
        return KeySource(kind="file", name=written.removeprefix(FILE_PREFIX))
    return KeySource(kind="given")


def _read_key_file(draft: Draft, name: str) -> str:
    try:
        if not Path(name).is_absolute():
            raise OSError("the path must be absolute, as every node reads it")
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        draft.complain(("llm_config", "api_key"), f"the key cannot be read from the file '{name}' ({error})")
        return ""


def _literal_warning(*, is_flag: bool) -> str:
    if is_flag:
        return "--llm-api-key: the key stood on the command line; history files and a job's entrypoint keep it"
    return 'llm_config.api_key: the key stands in the file; write a reference such as "${OPENROUTER_API_KEY}"'


def _usable(key: str) -> str:
    return "" if key.strip() == PLACEHOLDER_KEY else key.strip()


def _no_key(value: str, unset: list[str]) -> str:
    why = ""
    if unset:
        why = f" ({' and '.join(unset)} is not set)"
    elif value.strip() == PLACEHOLDER_KEY:
        why = f" ('{PLACEHOLDER_KEY}' counts as none)"
    return f"no key{why}. Set {' or '.join(KEY_VARIABLES)} in the environment, or give --llm-api-key."


def _is_loopback(base_url: str) -> bool:
    host = (urlsplit(base_url).hostname or "").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
