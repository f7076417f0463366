"""A run's directory: which run it belongs to, and the card that tells readers what is in it.

Guarantees: a directory belongs to one run file, until somebody forces another one upon it, and then both are there;
nothing else in it but the card is ever replaced.
"""

import fcntl
import itertools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from realwork.dataset.durable import durable_file, half_written
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, part_files
from realwork.dataset.side_files import SIDE_FOLDER
from realwork.errors import InputError, InUse, StoreError, blame
from realwork.text import shorten

RUN_FILE = "run.json"
CARD_FILE = "README.md"
PLUGINS_FILE = "plugins.json"
LOCK_FILE = ".driver.lock"
RECOVERY_S = 10.0
_RECOVERS = ", which puts rows into parts"
COPY_PREFIX = ".copy-"
"""Of directories in which a copy of a ledger is made."""
_MAX_VALUE_LENGTH = 80
_MAX_DIFFERENCES = 20
_FREE = {
    "rollout_config": ("trajectory_output_path", "max_parallel_rollouts", "store_shards", "cpu_slots"),
    "episode_control_config": ("max_open_groups",),
    "llm_config": ("requests_per_minute", "tokens_per_minute", "max_run_tokens", "max_run_cost_usd"),
}
"""Fields that may differ when a run is taken up."""

_CONFIGS = f"""\
---
configs:
- config_name: {FOLDER}
  data_files: {FOLDER}/part-*.parquet
  default: true
"""
_SAMPLES_CONFIG = f"""\
- config_name: {SAMPLES_FOLDER}
  data_files: {SAMPLES_FOLDER}/part-*.parquet
"""
_CARD = f"""\
---
# Rollouts

`{FOLDER}/part-*.parquet` has one row per attempt of a rollout; `{RUN_FILE}` is the resolved run file.

```python
datasets.load_dataset(DIRECTORY, "{FOLDER}")
pandas.read_parquet(DIRECTORY + "/{FOLDER}")
polars.scan_parquet(DIRECTORY + "/{FOLDER}/part-*.parquet")
duckdb.sql("from 'DIRECTORY/{FOLDER}/part-*.parquet'")
```

| columns | what they hold |
| --- | --- |
| `trajectory_id` | one attempt, unique: `run_id`:`environment_id`:`sample_index`:`attempt` |
| `group_id`, `sample_index` | samples of one task to be compared; the episodes of an environment, numbered from 0 |
| `group_size`, `group_complete` | planned samples of the group; whether all were graded once the row was written |
| `status`, `terminated_reason` | completed, truncated, failed or cancelled, and why the episode ended |
| `failure_cause`, `error_type`, `error_message` | what of the machinery failed; null when nothing did |
| `reward`, `reward_valid`, `success` | from the tests; null when they did not run. Train where `reward_valid` |
| `rewards`, `tests_passed`, `tests_total` | the parts of the reward: test commands that passed, of all |
| `test_results` | each test command, and (`test_kind` = case) each test that it told of |
| `messages`, `tools` | the conversation in the OpenAI chat format, and the tools the model had (JSON) |
| `steps` | one per reply of the model: tokens, cost, seconds, and the result of each tool call in order |
| `total_*`, `timing` | sums of what the endpoint reported; where the seconds of the attempt went |
| `model`, `sampling_params`, `seed` | the policy; `*_params`, `environment`, `plugin_data`, `metadata` are JSON |
| `docker_image`, `image_digest`, `network`, `node_id` | where it happened |
| `final_diff` | what the agent changed in the working directory, as `git diff` writes it; "" for nothing |

Where the endpoint told token ids, `{SAMPLES_FOLDER}/part-*.parquet` has one row per token segment: `input_ids`,
`completion_mask` (1 where the policy wrote the id), `logprobs` (0 elsewhere), the first `prompt_length` of them the
prompt; `reward` and `reward_valid` as above, `advantage` null. A segment ends where the next prompt does not begin with
all of it. `policy_version_min` and `_max` are those of its first and last step.

A group is whole if `group_complete` is true in any of its rows.

Times are UTC, durations are seconds (`_s`). A null says that something was not measured or does not apply.
"""


def open_run(directory: Path, run_json: str, *, takes_changes: bool = False) -> None:
    """Make `directory`, which is held, the run directory of the run described by `run_json`, or find that it is.

    What a killed process has left half-written there is removed.

    Args:
        takes_changes: let a changed run file take the place of the one that is there, which is kept beside it.

    Raises:
        InputError: it belongs to another run (the differences), or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _claim(directory, run_json, takes_changes=takes_changes)
        _clean(directory)
        if not (directory / CARD_FILE).exists():
            write_card(directory)
    except OSError as error:
        raise _unwritable(directory, error) from error


def write_card(directory: Path) -> None:
    """Write what readers of the dataset are told, for the folders that are there: one that is not fails some readers.

    Raises:
        OSError: it cannot be written.
    """
    samples = _SAMPLES_CONFIG if part_files(directory, SAMPLES_FOLDER) else ""
    _write(directory / CARD_FILE, _CONFIGS + samples + _CARD)


def note_plugins(directory: Path, said: dict[str, Any]) -> None:
    """Add what a start of the run says of the plugins that were called between its rollouts.

    Raises:
        StoreError: it cannot be written.
    """
    with blame(StoreError, f"{directory / PLUGINS_FILE} could not be written"):
        _write(directory / PLUGINS_FILE, json.dumps([*plugins_said(directory), said], indent=1) + "\n")


def plugins_said(directory: Path) -> list[dict[str, dict[str, Any]]]:
    """What each start of the run has said of the plugins that were called between its rollouts."""
    try:
        said: list[dict[str, dict[str, Any]]] = json.loads((directory / PLUGINS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return said


def check_writable(directory: Path) -> None:
    """Find out whether `directory` could be made or written, and leave nothing behind.

    Raises:
        InputError: it cannot.
    """
    try:
        there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
        with tempfile.TemporaryDirectory(dir=there, prefix=".realwork-"):
            pass
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: OSError) -> InputError:
    return InputError(
        f"{directory}: the output directory cannot be written ({error.strerror or error}). "
        "Give another `rollout_config.trajectory_output_path`, or make this one writable."
    )


@contextmanager
def held(directory: Path, *, recovers: bool = False) -> Iterator[None]:
    """The run in `directory` belongs to this process for the length of the block; the lock ends with the process.

    One that only `recovers` rows is waited for, for a short while. Directories that were made for it, and into which
    nothing was written, are removed again.

    Raises:
        InUse: another process has it; which, where and since when.
        InputError: it cannot be made or written.
    """
    made = [each for each in (directory, *directory.parents) if not os.path.lexists(each)]
    doing = _RECOVERS if recovers else ""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    try:
        file = _locked(directory)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now} UTC{doing}")
        file.flush()
    except OSError as error:
        raise _unwritable(directory, error) from error
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                if made and [path.name for path in directory.iterdir()] == [LOCK_FILE]:
                    (directory / LOCK_FILE).unlink()
                    for each in made:
                        each.rmdir()


def _locked(directory: Path) -> TextIO:
    """The lock file of a directory, which is made if need be, locked by this process."""
    end = time.monotonic() + RECOVERY_S
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            file = (directory / LOCK_FILE).open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever had it has removed both just now
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == (directory / LOCK_FILE).stat().st_ino:
                    return file
            file.close()  # whoever had it before has removed it
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = file.read().strip()
            if holder.endswith(_RECOVERS) and time.monotonic() < end:
                time.sleep(0.1)
                continue
            raise InUse(
                f"{directory} is being played by {holder or 'another process'}. "
                "Wait for its end, or give another --run-id."
            ) from error


def said_holder(directory: Path) -> str:
    """The last process to which the run belonged, its host and since when; empty if that is not known."""
    try:
        return (directory / LOCK_FILE).read_text(encoding="utf-8")
    except OSError:
        return ""


def host_of(holder: str) -> str | None:
    """The host in what `said_holder` returns, null if it has none."""
    return holder.partition(" on ")[2].partition(" since ")[0] or None


def is_run_directory(directory: Path) -> bool:
    """Whether `directory` holds one run."""
    return (directory / RUN_FILE).is_file() or bool(part_files(directory))


def _clean(directory: Path) -> None:
    for folder in (directory, directory / SIDE_FOLDER):
        for leftover, _ in half_written(folder):
            leftover.unlink(missing_ok=True)
    for leftover in directory.glob(f"{COPY_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # a store that is about to die may still be at it


def _claim(directory: Path, run_json: str, *, takes_changes: bool) -> None:
    path = directory / RUN_FILE
    if not path.exists():
        _write(path, run_json)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}). Give another run id, or remove the directory."
        ) from error
    differences = list(_differences(_comparable(there), _comparable(json.loads(run_json))))
    if differences and takes_changes:
        number = next(each for each in itertools.count(1) if not (directory / f"run-{each}.json").exists())
        _write(directory / f"run-{number}.json", path.read_text(encoding="utf-8"))
        _write(path, run_json)
    elif differences:
        left_out = len(differences) - _MAX_DIFFERENCES
        more = [f"{left_out} more differences"] if left_out > 0 else []
        message = (
            f"{directory} belongs to another run file. Give another run id, or the run file it was made with; "
            "--force-config goes on with this one."
        )
        raise InputError(message, problems=[*differences[:_MAX_DIFFERENCES], *more])


def _comparable(run: Any) -> Any:
    """What of a run's description decides what is played: not the version, nor how its directory is called."""
    if not isinstance(run, dict):
        return run
    run_file = run.get("run_file", {})
    sections = {
        name: {key: value for key, value in run_file.get(name, {}).items() if key not in free}
        for name, free in _FREE.items()
    }
    kept = {key: value for key, value in run.items() if key != "versions"}
    return kept | ({"run_file": run_file | sections} if run_file else {})


def _differences(there: Any, here: Any, place: str = "") -> Iterator[str]:
    """One sentence for each value that is not the same, with its place."""
    match there, here:
        case dict(), dict():
            for key in dict.fromkeys([*there, *here]):
                yield from _differences(there.get(key), here.get(key), f"{place}.{key}" if place else key)
        case list(), list() if len(there) == len(here):
            for position, (old, new) in enumerate(zip(there, here, strict=True)):
                yield from _differences(old, new, f"{place}[{position}]")
        case _ if there != here:
            yield f"{place}: {_show(there)} in {RUN_FILE}, {_show(here)} in this run"


def _show(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _MAX_VALUE_LENGTH).replace("\n", " ")


def _write(path: Path, text: str) -> None:
    with durable_file(path) as file:
        file.write(text.encode())
