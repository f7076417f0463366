"""A run file on its way to a `RunConfig`: old keys moved, flags merged in, references replaced, mistakes collected.

A draft that has problems still becomes a `RunConfig`, in which what is wrong is left out or stands as a placeholder, so
that everything else can be checked in the same go; `is_bad` tells which places not to look at.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from realwork.config import DUPLICATE_IDS, RunConfig
from realwork.references import replace_references
from realwork.runfile.problems import OLD_KEYS, missing_key, unknown_key, wrong_value
from realwork.runfile.read import Loc, Source, Unusable, place
from realwork.runfile.references import referred_secrets, takes_references

PLACEHOLDER_KEY = "your-api-key-here"
MOST_ROUNDS = 20
_FLAGS = {
    ("llm_config", "enable_caching"): "--llm-enable-caching",
    ("llm_config", "track_token_usage"): "--llm-disable-token-tracking",
    ("llm_config", "warn_high_usage"): "--llm-disable-high-usage-warnings",
    ("sandbox_config", "kind"): "--sandbox",
}
_PLACEHOLDERS: Mapping[str, Any] = {
    "docker_image": "?",
    "prompt": "?",
    "unit_tests": ["true"],
    "command": "true",
    "template_prompt": "?",
    "module": "?",
    "rollout_config": {},
}


class Draft:
    """What is known so far of one run file.

    Attributes:
        data: as it was written, with old keys moved and flags merged in; references stand as they are.
        secrets: values that no text for people may contain.
    """

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self.data = source.data
        self.problems = list(source.problems)
        self.warnings: list[str] = []
        self.secrets: set[str] = set()
        self.environ = environ
        self._is_yaml = source.is_yaml
        self._origins: dict[Loc, str] = {}
        self._bad: set[Loc] = set()

    def place(self, *loc: int | str) -> str:
        """The name of `loc` for people: the flag or old key that it came from, else its path."""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self._origins:
                return place(loc[end:], self._origins[loc[:end]])
        return place(loc)

    def is_flag(self, *loc: int | str) -> bool:
        """Whether the value at `loc` was given as a flag."""
        return self._origins.get(loc, "").startswith("--")

    def is_bad(self, *loc: int | str) -> bool:
        """Whether a problem with the value at `loc`, or with one that contains it, has been found."""
        return any(loc[:end] in self._bad for end in range(len(loc) + 1))

    def complain(self, loc: Loc, said: str) -> None:
        """Note a problem with the value at `loc`."""
        self.problems.append(f"{self.place(*loc)}: {said}")
        self._bad.add(loc)

    def refuse_local_sandbox(self) -> None:
        """A file alone may not take the isolation away; call it before the flags are merged."""
        sandbox = self.data.get("sandbox_config")
        kind = sandbox.get("kind") if isinstance(sandbox, dict) else None
        refusals = {
            "local": "'local' has no isolation and is not taken from a file; give --sandbox local",
            "memory": "'memory' runs nothing; it is for 'realwork bench scale'",
        }
        if isinstance(kind, str) and (said := refusals.get(kind)):
            self.complain(("sandbox_config", "kind"), said)

    def move_old_keys(self) -> None:
        """Move the seven old root keys to their sections, each with a warning; a new key that is there, too, wins."""
        for old, (section, field) in OLD_KEYS.items():
            if old not in self.data:
                continue
            value, warning = self.data.pop(old), f"{old}: this key has moved to {section}.{field}"
            fields = self.data.setdefault(section, {})
            if not isinstance(fields, dict):
                continue
            if field not in fields:
                fields[field] = value
                self._origins[section, field] = old
            elif fields[field] != value:
                warning += f", which is set as well, to something else; {section}.{field} wins"
            self.warnings.append(warning)

    def merge(self, overrides: Mapping[str, Mapping[str, object]]) -> None:
        """Put the flags over the file; one that is None was not given."""
        for section, given in overrides.items():
            for field, value in given.items():
                fields = self.data.setdefault(section, {})
                unset = value is None or (field == "api_key" and value in ("", PLACEHOLDER_KEY))
                if unset or not isinstance(fields, dict):
                    continue
                fields[field] = value
                flag = f"--llm-{field.replace('_', '-')}" if section == "llm_config" else f"{section}.{field}"
                self._origins[section, field] = _FLAGS.get((section, field), flag)

    def to_config(self) -> RunConfig:
        """The config of all that is valid; references are replaced, `problems` says what is left out.

        The key, which may be missing, and the paths, which may not exist, are as they were written.
        """
        tree: dict[str, Any] = self._replaced(self.data, ())
        for _ in range(MOST_ROUNDS):
            try:
                return RunConfig.model_validate(tree)
            except ValidationError as error:
                details = error.errors(include_url=False)
                for detail in sorted(details, key=lambda one: one["type"] != "extra_forbidden"):
                    self._take(tree, detail["type"], detail["loc"], detail.get("ctx", {}))
        raise AssertionError("a run file could not be mended")

    def _replaced(self, value: Any, loc: Loc) -> Any:
        match value:
            case dict():
                return {key: self._replaced(one, (*loc, key)) for key, one in value.items()}
            case list():
                return [self._replaced(one, (*loc, index)) for index, one in enumerate(value)]
            case str() if takes_references(loc):
                text, unset = replace_references(value, self.environ)
                self.secrets.update(referred_secrets(value, self.environ))
                for name in unset:
                    self.complain(
                        loc,
                        f"the environment variable {name} is not set. Set it, or write $${{{name}}} for the text.",
                    )
                if loc[:2] == ("llm_config", "headers"):
                    text = value  # replaced where it is sent
                return Unusable.VALUE if unset else text
            case _:
                return value

    def _take(self, tree: dict[str, Any], kind: str, loc: Loc, context: Mapping[str, Any]) -> None:
        """Note one complaint of the model, and mend `tree` so that the rest can be checked."""
        if kind == DUPLICATE_IDS:
            for index, first in zip(context["indexes"], context["firsts"], strict=True):
                one = tree["environments"][index]
                said = f"'{one['id']}' is the id of environments[{first}] already; ids must be unique"
                self.complain(("environments", index, "id"), said)
                one["id"] = f"?{index}"
            return
        if loc[-1] == "[key]" and loc[-3:-2] in (("environment_variables",), ("prices",), ("headers",)):
            loc = loc[:-1]
        if loc[-1] == "command" and isinstance(_at(tree, loc[:-1]), str):  # a test that is its command alone
            loc = loc[:-1]
        above, key = loc[:-1], loc[-1]
        holder = _at(tree, above)
        if not isinstance(holder, dict | list):
            self.complain(loc, wrong_value(kind, context, loc, holder, is_yaml=self._is_yaml))
            _put(_at(tree, above[:-1]), above, _placeholder(above))
        elif kind == "extra_forbidden":
            self._take_unknown(tree, loc)
        elif kind != "missing" or key not in holder:
            found = _at(self.data, loc)
            if kind == "missing":
                self.complain(loc, missing_key(loc))
            elif _at(tree, loc) is Unusable.VALUE:
                self._bad.add(loc)
            else:
                self.complain(loc, wrong_value(kind, context, loc, found, is_yaml=self._is_yaml))
            _put(holder, loc, _placeholder(loc))

    def _take_unknown(self, tree: dict[str, Any], loc: Loc) -> None:
        """Name an unknown key; where the key that was meant is plain, go on as if it stood there."""
        above, key = loc[:-1], str(loc[-1])
        said, meant = unknown_key(key, above)
        self.complain(loc, said)
        where = self.place(*loc)
        for top in (tree, self.data):
            holder = _at(top, above)
            value = holder.pop(key, None)
            if meant and meant not in holder:
                holder[meant] = value
                self._origins[(*above, meant)] = where


def _at(tree: Any, loc: Loc) -> Any:
    """What stands at `loc`, None if nothing does."""
    for part in loc:
        match tree, part:
            case dict(), str():
                tree = tree.get(part)
            case list(), int() if part < len(tree):
                tree = tree[part]
            case _:
                return None
    return tree


def _put(holder: Any, loc: Loc, value: Any) -> None:
    """Replace the last part of `loc` in `holder`; None removes it."""
    if value is None:
        holder.pop(loc[-1], None)
    else:
        holder[loc[-1]] = value


def _placeholder(loc: Loc) -> Any:
    """Something valid to stand at `loc`; None where its default does."""
    match loc:
        case ("environments",):
            return [_placeholder(("environments", 0))]
        case ("environments", int(index)):
            return {"id": f"?{index}", "docker_image": "?", "prompt": "?", "unit_tests": ["true"]}
        case ("environments", int(index), "id"):
            return f"?{index}"
        case ("plugins", int()):
            return {"module": "?"}
        case ("llm_config", "prices", str(), _):
            return 0.0
        case (*_, "capabilities", int()):
            return "KILL"
        case (*_, int()):
            return "?"
        case _:
            return _PLACEHOLDERS.get(str(loc[-1]))
