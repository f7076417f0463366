"""An episode whose sandbox holds more than it may: it ends, nothing more runs, and the work is graded."""

import json

from realwork.sandbox.base import CommandResult
from realwork.sandbox.memory import MemorySandbox

from .rollouts import OK, call, calls, play, run


class FillingSandbox(MemorySandbox):
    """Is full as soon as the command `fill` has run."""

    async def execute(self, command, **options):
        self.is_disk_full = self.is_disk_full or command == "fill"
        return await super().execute(command, **options)


def test_an_episode_that_fills_the_disk_ends_with_disk_limit_and_is_graded():
    replies = [
        run("ls"),
        calls(call("execute_command", command="fill"), call("execute_command", command="ls")),
        run("x"),
    ]
    trajectory, backends = play(replies, {"ls": OK, "fill": OK}, sandbox=FillingSandbox)
    assert (trajectory.status, trajectory.terminated_reason) == ("truncated", "disk_limit")
    assert (trajectory.reward, trajectory.success) == (1.0, True)
    assert len(trajectory.steps) == 2
    filled, refused = trajectory.steps[1].observations
    assert "More was written to disk than is allowed" in filled.error
    assert (refused.status, refused.error) == (
        "not_executed",
        "Not executed: more was written to disk than is allowed.",
    )
    assert backends.closed


def test_a_row_says_which_protections_do_not_hold():
    class Weak(MemorySandbox):
        not_enforced = ("swap",)

    trajectory, _ = play([], sandbox=Weak)
    assert json.loads(trajectory.metadata)["not_enforced"] == ["swap"]


def test_a_test_command_that_fills_the_disk_says_so():
    trajectory, _ = play([], {"fill": CommandResult(exit_code=137)}, sandbox=FillingSandbox, unit_tests=["fill"])
    assert trajectory.reward == 0.0
    assert "More was written to disk than is allowed" in trajectory.test_results[0].error
