"""Says in plain sentences what is wrong with a run file: the place, what was found and what is expected.

Guarantees: no value under `api_key` or `environment_variables` is ever shown, nor one of an unknown key; lists and
objects are named by their kind only.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from realwork.config import (
    EnvironmentConfig,
    EpisodeControlConfig,
    GradingConfig,
    LlmConfig,
    PluginEntry,
    Price,
    RolloutConfig,
    RunConfig,
    SandboxConfig,
    TimeoutConfig,
    UnitTest,
)
from realwork.runfile.read import Loc, kind_of

OLD_KEYS: Mapping[str, tuple[str, str]] = {
    "llm_model": ("llm_config", "model"),
    "max_episodes": ("episode_control_config", "max_episodes"),
    "stop_on_success": ("episode_control_config", "stop_on_success"),
    "max_parallel_rollouts": ("rollout_config", "max_parallel_rollouts"),
    "output_path": ("rollout_config", "trajectory_output_path"),
    "plugins_enabled": ("rollout_config", "enable_plugins"),
    "global_timeout": ("timeout_config", "global_timeout"),
}
LONGEST_SHOWN = 60
_SECTIONS: Mapping[str, type[BaseModel]] = {
    "llm_config": LlmConfig,
    "rollout_config": RolloutConfig,
    "episode_control_config": EpisodeControlConfig,
    "timeout_config": TimeoutConfig,
    "sandbox_config": SandboxConfig,
    "grading_config": GradingConfig,
    "environments": EnvironmentConfig,
    "unit_tests": UnitTest,
    "plugins": PluginEntry,
    "prices": Price,
}
_HOMES = {name: f"an entry of {name}" for name in ("environments", "unit_tests", "plugins", "prices")}
_SECONDS = ("global_timeout", "command_timeout", "test_timeout", "timeout")
_TYPES = {
    "string_type": "text",
    "string_unicode": "text of whole characters",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
_BOUNDS = {
    "greater_than": "a number greater than {gt:.12g}",
    "greater_than_equal": "a number of at least {ge:.12g}",
    "less_than_equal": "a number of at most {le:.12g}",
    "too_long": "at most {max_length} characters",
    "literal_error": "one of {expected}",
}


def unknown_key(key: str, loc: Loc) -> tuple[str, str | None]:
    """What to say of the unknown `key` of the section at `loc`, after its place; and the key that was plainly meant."""
    homes = [name for name, section in _SECTIONS.items() if key in section.model_fields]
    if key in RunConfig.model_fields:
        return f"unknown key. '{key}' belongs to the root of the file.", None
    if homes and homes == [loc[-1] if loc else ""]:
        return f"unknown key. '{key}' holds for the whole run: it belongs to {homes[0]} at the root of the file.", None
    if homes:
        return f"unknown key. '{key}' belongs to {' or '.join(_HOMES.get(name, name) for name in homes)}.", None
    names = list(_section_at(loc).model_fields)
    near = difflib.get_close_matches(re.sub(r"(?<=[a-z])(?=[A-Z])|[-\s]", "_", key).lower(), names, n=1, cutoff=0.7)
    if near:
        return f"unknown key. Did you mean '{near[0]}'?", near[0]
    if key in OLD_KEYS:
        return f"unknown key. It is called {'.'.join(OLD_KEYS[key])} now.", None
    return "unknown key.", None


def missing_key(loc: Loc) -> str:
    """What to say of the required key at `loc` that is missing, after its place."""
    description = _section_at(loc[:-1]).model_fields[str(loc[-1])].description or "."
    return f"missing. It is required: {description[0].lower()}{description[1:]}"


def wrong_value(kind: str, context: Mapping[str, Any], loc: Loc, found: object, *, is_yaml: bool) -> str:
    """What to say of the value at `loc`, after its place.

    Args:
        kind, context: the type and context of the model's complaint.
    """
    if kind == "value_error":
        plain = isinstance(found, str) and found.strip() and _may_be_shown(loc)
        return f"{context['error']}, found {_shown(found, loc)}" if plain else str(context["error"])
    if kind == "too_short":
        return "must not be empty: at least one entry is needed"
    if kind == "model_type" and loc[-2:-1] == ("unit_tests",):
        kind = "string_type"
    expected = _TYPES.get(kind) or _BOUNDS.get(kind, "another value").format(**context)
    if loc[-1] in _SECONDS:
        expected = expected.replace("a number", "a number of seconds", 1).replace("seconds of", "seconds,", 1)
    return f"expected {expected}, found {_shown(found, loc)}{_hint(expected, found, is_yaml=is_yaml)}"


def _hint(expected: str, found: object, *, is_yaml: bool) -> str:
    if expected == "text" and isinstance(found, bool | int | float):
        surprise = ". In YAML, on, off, yes and no mean true and false" if is_yaml and isinstance(found, bool) else ""
        return f": put it in quotes{surprise}"
    if isinstance(found, str) and ("number" in expected or expected == "true or false"):
        return ": write it without quotes" if re.fullmatch(r"[-+]?\d+(\.\d+)?|true|false", found) else ""
    return ""


def _shown(found: object, loc: Loc) -> str:
    if isinstance(found, bool | None | list | dict) or not _may_be_shown(loc):
        return kind_of(found)
    text = found if isinstance(found, str) else json.dumps(found, default=kind_of)
    text = "".join(one if one.isprintable() else json.dumps(one).strip('"') for one in text)
    text = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}.."
    return f"'{text}'" if isinstance(found, str) else text


def _may_be_shown(loc: Loc) -> bool:
    """Whether the value at `loc` is a plain setting, neither secret nor a place where a section should stand."""
    hidden = {"api_key", "environment_variables", "base_url", "config"} & set(loc)
    return not hidden and isinstance(loc[-1], str) and loc[-1] not in _SECTIONS.keys() - {"unit_tests"}


def _section_at(loc: Sequence[int | str]) -> type[BaseModel]:
    if "prices" in loc:  # its keys are names of models, which may be any
        return Price
    names = [part for part in loc if isinstance(part, str)]
    return _SECTIONS[names[-1]] if names else RunConfig
