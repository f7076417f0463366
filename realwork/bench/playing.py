"""Runs that are made to be measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from realwork.api import run
from realwork.distributed.result import Observer, RunResult
from realwork.errors import RunAborted
from realwork.runfile import load_run_file

MEMORY_MIB = 256


def run_document(image: str, base_url: str, rollout_config: dict[str, Any], episodes: int) -> dict[str, Any]:
    """A run file of so many episodes of one environment."""
    environment = {"id": "bench", "docker_image": image, "prompt": "bench", "unit_tests": ["test -f file-0"]}
    return {
        "environments": [environment],
        "template_prompt": "bench",
        "llm_config": {"model": "bench", "base_url": base_url},
        "rollout_config": rollout_config,
        "episode_control_config": {"max_episodes": episodes, "safety_limit": episodes},
        "sandbox_config": {"memory_mib": MEMORY_MIB},
    }


def play(
    document: dict[str, Any],
    folder: str,
    *,
    overrides: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    address: str | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Play a run file to its end, with its data in `folder`.

    Raises:
        InputError: it cannot be played here.
        RunAborted: it could not go on.
        KeyboardInterrupt: the user has stopped it.
    """
    file = Path(folder) / "run.json"
    limits = document["rollout_config"] | {"trajectory_output_path": f"{folder}/trajectories"}
    file.write_text(json.dumps(document | {"rollout_config": limits}))
    result = run(load_run_file(file, overrides=overrides), address=address, observer=observer)
    if result.interrupted:
        raise KeyboardInterrupt
    if result.aborted is not None:
        raise RunAborted(result.aborted)
    return result
