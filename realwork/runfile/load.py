"""Loads a run file: JSON, YAML or TOML, flags on top, every mistake named at once.

Guarantees: what comes back can be run as far as this machine can tell without an engine; `document`, `warnings` and
every problem are free of secrets. The old keys, references and the key follow the rules of `draft`,
`references` and `checks`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from realwork.config import RunConfig
from realwork.errors import InputError
from realwork.references import REFERENCE
from realwork.runfile.checks import Folders, check_output_of, find_folders, find_script
from realwork.runfile.draft import Draft
from realwork.runfile.key import find_key
from realwork.runfile.read import Loc, read_source
from realwork.runfile.secrets import HIDDEN, hide_value, scrub
from realwork.secret import FILE_PREFIX, KeySource, Secret
from realwork.types import Record


class RunFile(Record):
    """A valid run file.

    Attributes:
        config: resolved: references replaced, the key found, paths absolute. Holds secrets.
        key: where other processes find the key.
        folders: environment id to its folders.
        warnings: one sentence each.
        document: the file as JSON text with sorted keys, flags merged in, defaults filled in, references as they were
            written, secrets as `***`.
    """

    path: Path
    config: RunConfig = Field(repr=False)
    key: KeySource
    folders: dict[str, Folders]
    warnings: tuple[str, ...]
    document: str

    def environment_json(self, environment_id: str) -> str:
        """The part of `document` that is the environment of that id.

        Raises:
            KeyError: there is none.
        """
        for environment in json.loads(self.document)["environments"]:
            if environment["id"] == environment_id:
                return _canonical(environment)
        raise KeyError(environment_id)


def load_run_file(
    path: Path | str,
    *,
    overrides: Mapping[str, Mapping[str, object]] = {},
    environ: Mapping[str, str] = os.environ,
    needs_key: bool = True,
) -> RunFile:
    """The run file at `path`, read, merged, resolved and checked.

    Args:
        overrides: `{section: {field: value}}` of the flags that were given; they win over the file. None is not
            given. References in them are replaced as in the file.
        needs_key: whether a missing key is a problem; it is none in a dry run.

    Raises:
        InputError: with every problem that can be seen from here.
    """
    path = Path(path)
    source = read_source(path)
    draft = Draft(source, environ)
    draft.move_old_keys()
    draft.refuse_local_sandbox()
    draft.merge(overrides)
    valid = draft.to_config()
    base = path.absolute().parent
    folders = find_folders(draft, valid, base)
    output = check_output_of(draft, valid)
    model = find_script(draft, valid, base)
    key = find_key(draft, valid, needs_key=needs_key)
    if draft.problems:
        problems = [scrub(problem, draft.secrets) for problem in dict.fromkeys(draft.problems)]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{path}: {count}", problems=problems)
    return RunFile(
        path=path.absolute(),
        config=_resolved(valid, model=model, key=key and key.secret, output=output),
        key=key.source if key else KeySource(),
        folders=folders,
        warnings=tuple(scrub(warning, draft.secrets) for warning in draft.warnings),
        document=_document(valid, draft.data, draft.secrets),
    )


def _resolved(config: RunConfig, *, model: str, key: Secret | None, output: str) -> RunConfig:
    return config.model_copy(
        update={
            "llm_config": config.llm_config.model_copy(update={"model": model, "api_key": key}),
            "rollout_config": config.rollout_config.model_copy(update={"trajectory_output_path": output}),
        }
    )


def _document(config: RunConfig, written: dict[str, Any], secrets: Iterable[str]) -> str:
    shown = _shown(config.model_dump(mode="json"), written, (), tuple(secrets))
    key = written.get("llm_config", {}).get("api_key")
    is_shown = key is None or REFERENCE.fullmatch(key) or key.startswith(FILE_PREFIX)
    shown["llm_config"]["api_key"] = key if is_shown else HIDDEN
    return _canonical(shown)


def _shown(value: Any, written: Any, loc: Loc, secrets: tuple[str, ...]) -> Any:
    """`value` with each text as it was `written`, if it was, and without secrets."""
    match value:
        case dict():
            own = written if isinstance(written, dict) else {}
            return {key: _shown(one, own.get(key), (*loc, key), secrets) for key, one in value.items()}
        case list():
            own_list = written if isinstance(written, list) else [None] * len(value)
            return [
                _shown(one, own, (*loc, index), secrets)
                for index, (one, own) in enumerate(zip(value, own_list, strict=True))
            ]
        case str():
            text = scrub(written if isinstance(written, str) else value, secrets)
            return hide_value(_free_names(loc), text) if _free_names(loc) else text
        case _:
            return value


def _free_names(loc: Loc) -> Loc:
    """The keys of `loc` that are the user's own, below a field that takes any; none elsewhere."""
    match loc:
        case (_, _, "environment_variables" | "config", *names) | ("llm_config", "headers" | "extra_body", *names):
            return tuple(names)
        case _:
            return ()


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
