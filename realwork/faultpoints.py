"""Named places at which a test ends the process as a crash would; nowhere else do they do anything.

`REALWORK_FAULT_POINTS=after-wal:0.1,exec:0.02` kills the process at one in ten passages of the first place and one in
fifty of the second one; `REALWORK_FAULT_SEED` makes the dice fall alike. `REALWORK_ACK_LOG=FILE` keeps a line for each
trajectory that an actor was told to be durable.
"""

import hashlib
import os
import random
import signal
from pathlib import Path
from typing import Literal

from realwork.types import Trajectory

Point = Literal[
    "create",
    "start",
    "exec",
    "llm-wait",
    "grade",
    "before-commit",
    "after-wal",
    "after-ack",
    "claimed",
    "renamed",
    "merging",
    "merged",
]
"""A sandbox is about to be made, and stands; a command, a request, the tests and a commit are about to begin; a commit
is on the disk, and its answer has come; rows are claimed for a part, and the part has its name; a merged part is about
to be noted, and has its name."""


def _armed(written: str) -> dict[str, float]:
    pairs = (each.partition(":") for each in written.split(",") if each)
    return {name: float(chance or 1) for name, _, chance in pairs}


_CHANCES = _armed(os.environ.get("REALWORK_FAULT_POINTS", ""))
_ACK_LOG = os.environ.get("REALWORK_ACK_LOG")
_DICE = random.Random(f"{os.environ.get('REALWORK_FAULT_SEED', '')}{os.getpid()}")


def note_ack(trajectory: Trajectory) -> None:
    """Note that `trajectory` was acknowledged, if a test asks for it: its id, and the hash of its content."""
    if _ACK_LOG:
        with Path(_ACK_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{trajectory.spec.trajectory_id} {hash_of(trajectory)}\n")


def hash_of(trajectory: Trajectory) -> str:
    """The hash of all that an actor says of a trajectory; how long it waited for its store is added later."""
    said = trajectory.model_copy(update={"timing": trajectory.timing.model_copy(update={"store_s": 0.0})})
    return hashlib.sha256(said.model_dump_json().encode()).hexdigest()


def pass_through(name: Point) -> None:
    """End this process here, if a test has armed the place and the dice say so."""
    if _CHANCES and _DICE.random() < _CHANCES.get(name, 0.0):
        os.kill(os.getpid(), signal.SIGKILL)
