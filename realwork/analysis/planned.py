"""How many rollouts a run was to play, read from its run file: what has no row is missing, and must be seen."""

import json
from collections import Counter
from pathlib import Path

from realwork.config import EpisodeControlConfig
from realwork.dataset.read import run_directories
from realwork.dataset.run_directory import RUN_FILE


def planned_rollouts(directory: Path) -> Counter[str]:
    """Planned rollouts by environment, over all runs there; a run whose run file is not there plans nothing.

    Raises:
        InputError: there is no run.
    """
    found: Counter[str] = Counter()
    for run in run_directories(directory):
        try:
            document = json.loads((run / RUN_FILE).read_text(encoding="utf-8")).get("run_file", {})
            control = EpisodeControlConfig.model_validate(document.get("episode_control_config", {}))
        except (OSError, ValueError, AttributeError):
            continue
        found.update({each["id"]: control.episodes_per_environment for each in document.get("environments", ())})
    return found
