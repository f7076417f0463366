"""The formats that a run can be exported to, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from realwork.analysis.export.atif import export_atif
from realwork.analysis.export.files import Exported
from realwork.analysis.export.jsonl import export_jsonl
from realwork.analysis.export.seed_json import export_json
from realwork.analysis.export.skyrl import export_skyrl
from realwork.analysis.export.trl_dpo import export_trl_dpo
from realwork.analysis.export.trl_kto import export_trl_kto
from realwork.analysis.export.trl_sft import export_trl_sft
from realwork.analysis.export.verl import export_verl
from realwork.dataset.read import run_directories
from realwork.errors import InputError, StoreError

Kind = Literal["JSON", "JSONL", "Parquet"]
_SUFFIXES: dict[Kind, tuple[str, ...]] = {"JSON": (".json",), "JSONL": (".jsonl", ".json"), "Parquet": (".parquet",)}


class Format(NamedTuple):
    """What the file is, what an entry of it is, and what writes it from the directory of a run."""

    kind: Kind
    entry: str
    write: Callable[[Path, Path], Exported]


def _export_seed_json(directory: Path, output: Path) -> Exported:
    try:
        return export_json(directory, output)
    except OSError as error:
        raise StoreError(f"{output} could not be written: {error}") from error


FORMATS = {
    "seed-json": Format("JSON", "rollout", _export_seed_json),
    "trl-sft": Format("JSONL", "rollout", export_trl_sft),
    "trl-dpo": Format("JSONL", "pair", export_trl_dpo),
    "trl-kto": Format("JSONL", "rollout", export_trl_kto),
    "verl": Format("Parquet", "rollout", export_verl),
    "skyrl": Format("Parquet", "rollout", export_skyrl),
    "atif": Format("JSONL", "rollout", export_atif),
    "jsonl": Format("JSONL", "row", export_jsonl),
}


def export(directory: Path, name: str, output: Path) -> Exported:
    """Write what is in `directory` to `output` in the format of that name.

    Raises:
        InputError: there is no such format, no run or nothing to export, or `output` is no place for a file of it.
        StoreError: a part cannot be read, or the file cannot be written.
    """
    if name not in FORMATS:
        raise InputError(f"There is no format '{name}'. The formats are: {', '.join(FORMATS)}.")
    chosen = FORMATS[name]
    known = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
    if output.suffix in known - set(_SUFFIXES[chosen.kind]):
        raise InputError(
            f"{output}: {name} is {chosen.kind}, and readers go by the name. End it in {_SUFFIXES[chosen.kind][0]}."
        )
    for run in run_directories(directory):
        if output.resolve().is_relative_to(run.resolve()):
            raise InputError(f"{output} would stand among the files of the run in {run}. Give a file outside of it.")
    return chosen.write(directory, output)
