"""JSON lines for TRL's DPOTrainer: the best rollout of a group against the worst. Pure functions over the Parquet.

One line per group whose rewards differ; of equal rewards the lowest sample stands for them. The two halves of a pair
may stand far apart in the run, so completions wait for each other in a nameless file beside the output, not in memory.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from realwork.analysis.export.chat import chat, tools
from realwork.analysis.export.files import Exported, Json, exported, to_json, write_json_lines
from realwork.analysis.export.rollouts import SILENT, Result, Selection, completion, graded_rollouts, prompt
from realwork.errors import InputError, StoreError
from realwork.types import Trajectory

ALONE = "groups of one graded rollout"
EQUAL = "groups with equal rewards"
BETWEEN = "graded rollouts that are neither best nor worst of their group"
DIFFERENT = "pairs whose prompts differ"


class Pair(NamedTuple):
    """Two rollouts of a group, of which the first has the higher reward."""

    chosen: Result
    rejected: Result


def export_trl_dpo(directory: Path, output: Path) -> Exported:
    """Write a pair for each group of `directory` to `output`.

    Raises:
        InputError: there is no run, no graded rollout, no group with two different rewards, or `output` is no place
            for a file.
        StoreError: a part cannot be read, or a file cannot be written.
    """
    selection = graded_rollouts(directory)
    found = pairs(selection.results, selection.left_out)
    nothing = f"No group in {directory} has two graded rollouts with different rewards, so there is no pair to export."
    if not found:
        raise InputError(nothing)
    wanted = Selection([result for pair in found for result in pair], selection.left_out)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent) as file:
            halves = _Halves(file, wanted.with_reply(directory))
            entries = _entries(found, halves, selection.left_out)
            return exported(write_json_lines(output, entries, nothing=nothing), selection.left_out)
    except OSError as error:
        raise StoreError(f"{output} could not be written: {error}") from error


def pairs(results: Iterable[Result], left_out: Counter[str]) -> list[Pair]:
    """Best and worst of each group, groups in the order of their first result; why others are none is counted."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        members = groups.setdefault(result.group_id, [])
        if result.n_steps:
            members.append(result)
        else:
            left_out[SILENT] += 1
    found = []
    for members in groups.values():
        members.sort(key=lambda each: each.sample_index)
        best, worst = max(members, key=_reward, default=None), min(members, key=_reward, default=None)
        if best is None or worst is None or len(members) == 1:
            left_out[ALONE] += len(members)
        elif best.reward == worst.reward:
            left_out[EQUAL] += 1
        else:
            found.append(Pair(best, worst))
            left_out[BETWEEN] += len(members) - 2
    return found


def _reward(result: Result) -> float:
    assert result.reward is not None
    return result.reward


class _Halves:
    """What a pair needs of each of its trajectories, kept in a file."""

    def __init__(self, file: BinaryIO, trajectories: Iterable[Trajectory]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        for trajectory in trajectories:
            half = {
                "prompt": chat(prompt(trajectory)),
                "completion": chat(completion(trajectory)),
                "tools": tools(trajectory),
            }
            self._places[trajectory.spec.trajectory_id] = (file.tell(), file.write(to_json(half).encode()))

    def get(self, trajectory_id: str) -> Json | None:
        """The half that the trajectory gives, null if it has none."""
        if trajectory_id not in self._places:
            return None
        start, length = self._places[trajectory_id]
        self._file.seek(start)
        half: Json = json.loads(self._file.read(length))
        return half


def _entries(found: Iterable[Pair], halves: _Halves, left_out: Counter[str]) -> Iterator[Json]:
    """The lines of the pairs: TRL's conversational preference with explicit prompt and tools."""
    for pair in found:
        chosen, rejected = halves.get(pair.chosen.trajectory_id), halves.get(pair.rejected.trajectory_id)
        if chosen is None or rejected is None:
            continue
        if chosen["prompt"] != rejected["prompt"]:
            left_out[DIFFERENT] += 1
            continue
        yield {
            "prompt": chosen["prompt"],
            "chosen": chosen["completion"],
            "rejected": rejected["completion"],
            "tools": chosen["tools"],
            "score_chosen": pair.chosen.reward,
            "score_rejected": pair.rejected.reward,
            "chosen_id": pair.chosen.trajectory_id,
            "rejected_id": pair.rejected.trajectory_id,
        }
