"""A run's directory: which run it belongs to, and the card that tells readers what is in it.

Guarantees: a directory belongs to one run file for good; nothing in it is replaced.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from realwork.errors import InputError
from realwork.text import shorten
from realwork.trajectories.durable import durable_file
from realwork.trajectories.parts import FOLDER, part_files

RUN_FILE = "run.json"
CARD_FILE = "README.md"
LOCK_FILE = ".driver.lock"
_MAX_VALUE_LENGTH = 80
_MAX_DIFFERENCES = 20
_FREE = ("trajectory_output_path", "max_parallel_rollouts")

_CARD = f"""\
---
configs:
- config_name: {FOLDER}
  data_files: {FOLDER}/part-*.parquet
  default: true
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
| `group_id`, `sample_index` | the episodes of one environment are one group, numbered from 0 |
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

Times are UTC, durations are seconds (`_s`). A null says that something was not measured or does not apply.
"""


def open_run(directory: Path, run_json: str) -> None:
    """Make `directory` the run directory of the run described by `run_json`, or find that it is.

    Raises:
        InputError: it belongs to another run (the differences), or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _claim(directory, run_json)
        if not (directory / CARD_FILE).exists():
            _write(directory / CARD_FILE, _CARD)
    except OSError as error:
        raise InputError(
            f"{directory}: the output directory cannot be written ({error.strerror or error}). "
            "Give another `rollout_config.trajectory_output_path`, or make this one writable."
        ) from error


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """The run in `directory` belongs to this process for the length of the block; the lock ends with the process.

    Raises:
        InputError: another process plays it; which, where and since when.
    """
    with (directory / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{directory} is being played by {file.read().strip() or 'another process'}. "
                "Wait for its end, or give another --run-id."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        file.flush()
        yield


def is_run_directory(directory: Path) -> bool:
    """Whether `directory` holds one run."""
    return (directory / RUN_FILE).is_file() or bool(part_files(directory))


def _claim(directory: Path, run_json: str) -> None:
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
    if differences:
        left_out = len(differences) - _MAX_DIFFERENCES
        more = [f"{left_out} more differences"] if left_out > 0 else []
        message = f"{directory} belongs to another run file. Give another run id, or the run file it was made with."
        raise InputError(message, problems=[*differences[:_MAX_DIFFERENCES], *more])


def _comparable(run: Any) -> Any:
    """What of a run's description decides what is played: not the version, nor how its directory is called."""
    if not isinstance(run, dict):
        return run
    run_file = run.get("run_file", {})
    rollout = {key: value for key, value in run_file.get("rollout_config", {}).items() if key not in _FREE}
    kept = {key: value for key, value in run.items() if key != "versions"}
    return kept | ({"run_file": run_file | {"rollout_config": rollout}} if run_file else {})


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
