"""How many rollouts a run was to play, read from its run file: what has no row is missing, and must be seen."""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from pathlib import Path

from realwork.analysis.attempts import Attempt
from realwork.config import EpisodeControlConfig
from realwork.dataset.read import run_directories
from realwork.dataset.run_directory import RUN_FILE
from realwork.schedule import is_satisfied


class Planned:
    """What the runs of a directory were to play; a run whose run file is not there plans nothing.

    Attributes:
        rollouts: by environment, over all runs.

    Raises:
        InputError: there is no run.
    """

    def __init__(self, directory: Path) -> None:
        self.rollouts: Counter[str] = Counter()
        self._of_runs: dict[str, dict[str, int]] = {}
        self._controls: dict[str, EpisodeControlConfig] = {}
        for run in run_directories(directory):
            try:
                document = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
                asked = document.get("run_file", {})
                control = EpisodeControlConfig.model_validate(asked.get("episode_control_config", {}))
            except (OSError, ValueError, AttributeError):
                continue
            planned = {each["id"]: control.episodes_per_environment for each in asked.get("environments", ())}
            self.rollouts.update(planned)
            run_id = document.get("run_id", run.name)
            self._of_runs[run_id], self._controls[run_id] = planned, control

    def unnecessary(self, environment_id: str, played: Sequence[Attempt], stopped: Container[str]) -> int:
        """How many rollouts of an environment have no row as episode control, or a plugin that `stopped` it, wanted so.

        `played` are the attempts that count for its other rollouts.
        """
        by_run: defaultdict[str, list[Attempt]] = defaultdict(list)
        for each in played:
            by_run[each.rollout.run_id].append(each)
        return sum(
            max(0, self._of_runs[run_id].get(environment_id, 0) - len(own))
            for run_id, own in by_run.items()
            if run_id in self._controls and (environment_id in stopped or self._is_satisfied(run_id, own))
        )

    def _is_satisfied(self, run_id: str, played: Sequence[Attempt]) -> bool:
        graded = sum(each.graded for each in played)
        successful = sum(each.success is True for each in played)
        return is_satisfied(self._controls[run_id], graded=graded, successful=successful)
