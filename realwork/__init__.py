"""Rollouts of LLM agents doing software work in Docker containers on Ray, graded by tests, written as Parquet."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realwork.api import run
    from realwork.dataset.arrow import read, samples
    from realwork.dataset.read import trajectories
    from realwork.runfile import load_run_file
    from realwork.streaming import rollout_source, stream

__version__ = "0.1.0"
__all__ = ["__version__", "load_run_file", "read", "rollout_source", "run", "samples", "stream", "trajectories"]

_HOMES = {
    "load_run_file": "realwork.runfile",
    "read": "realwork.dataset.arrow",
    "rollout_source": "realwork.streaming",
    "run": "realwork.api",
    "samples": "realwork.dataset.arrow",
    "stream": "realwork.streaming",
    "trajectories": "realwork.dataset.read",
}


def __getattr__(name: str) -> Any:
    """What is named here is loaded when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'realwork' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
