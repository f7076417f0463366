"""Rollouts, what is asked for and what became of it."""

from datetime import datetime
from typing import Literal

from realwork.errors import FailureCause
from realwork.types.chat import Message
from realwork.types.grades import NamedReward, TestResult
from realwork.types.records import Record
from realwork.types.steps import Step

Status = Literal["completed", "truncated", "failed", "cancelled"]
TerminatedReason = Literal[
    "completed",
    "completed_naturally",
    "global_timeout",
    "action_limit",
    "context_limit",
    "token_limit",
    "disk_limit",
    "llm_error",
    "environment_error",
    "grading_error",
    "cancelled",
]


Phase = Literal["waiting", "starting", "preparing", "booting", "asking", "acting", "grading", "writing"]


class Doing(Record):
    """What a rollout in flight is at, for `seconds`.

    Attributes:
        phase: waiting (for what others do), starting (its process), preparing (its image), booting (its sandbox),
            asking (the model), acting (on a tool call), grading, or writing (its row).
        step: which step of the episode it is at, from 1; 0 before the first.
        detail: the command, where there is one.
    """

    phase: Phase
    step: int = 0
    detail: str = ""
    seconds: float = 0.0


class Timing(Record):
    """Where the seconds of one attempt went.

    Attributes:
        slot_s: waits of commands and tests for CPU slots, which stand in no other.
    """

    queue_s: float = 0.0
    image_s: float = 0.0
    boot_s: float = 0.0
    agent_s: float = 0.0
    llm_s: float = 0.0
    env_s: float = 0.0
    grade_s: float = 0.0
    slot_s: float = 0.0
    store_s: float = 0.0


class Resumption(Record):
    """What an attempt goes on from when an earlier one lost its container.

    Attributes:
        parent_trajectory_id: the earlier attempt.
        fork_step: how many of its steps are taken over, with their messages.
        snapshot_id: the files as they were after the last of these steps.
    """

    parent_trajectory_id: str
    fork_step: int
    snapshot_id: str


class RolloutSpec(Record):
    """One attempt of one scheduled rollout: plain identity, no settings.

    Attributes:
        sample_index: position among the environment's episodes, from 0.
        group_index: which group of the environment's it belongs to, from 0; null where all its episodes are one group.
        group_size: how many episodes its group is to have.
        attempt: 0, or higher after a retryable failure.
        seed: the seed of this sample's completions.
        resumed: what the attempt is to go on from, if that is still there; no part of the row.
    """

    run_id: str
    environment_id: str
    sample_index: int
    group_index: int | None = None
    group_size: int = 1
    attempt: int = 0
    seed: int = 0
    resumed: Resumption | None = None

    @property
    def rollout_id(self) -> str:
        return f"{self.environment_id}:{self.sample_index}"

    @property
    def group_id(self) -> str:
        group = f"{self.run_id}:{self.environment_id}"
        return group if self.group_index is None else f"{group}:{self.group_index}"

    @property
    def trajectory_id(self) -> str:
        return f"{self.run_id}:{self.rollout_id}:{self.attempt}"


class Trajectory(Record):
    """The immutable record of one attempt; the row of `trajectories/` is made of it.

    Attributes:
        parent_trajectory_id: the attempt that this one went on from, null when it began at the beginning.
        fork_step: how many steps were taken over from that attempt; they stand in `steps`, and in no sum.
        messages: the whole conversation, from the system prompt to the last observation, what was taken over included.
        tools: the tool schemas the model was given, as JSON text.
        reward: passed test commands over all of them, in [0, 1]; null when not graded.
        test_results: each test command, followed by its cases if it told of them.
        changed_outside: files changed outside the working directory, which a fresh sandbox does not get.
        final_diff: what the agent changed in the working directory, as `git diff` writes it; "" for nothing, null where
            that is not known.
        plugin_data: JSON text, `{plugin: what it said}`.
    """

    spec: RolloutSpec
    status: Status
    terminated_reason: TerminatedReason
    started_at: datetime
    ended_at: datetime
    parent_trajectory_id: str | None = None
    fork_step: int | None = None
    failure_cause: FailureCause | None = None
    error_type: str | None = None
    error_message: str | None = None
    retryable: bool = False
    reward: float | None = None
    rewards: tuple[NamedReward, ...] = ()
    success: bool | None = None
    test_results: tuple[TestResult, ...] = ()
    grading_mode: str | None = None
    changed_outside: int | None = None
    final_diff: str | None = None
    messages: tuple[Message, ...] = ()
    tools: str = "[]"
    steps: tuple[Step, ...] = ()
    model: str = ""
    base_url_host: str = ""
    sampling_params: str = "{}"
    timing: Timing = Timing()
    docker_image: str = ""
    image_digest: str | None = None
    node_id: str = ""
    network: str = "none"
    environment: str = "{}"
    plugin_data: str = "{}"
    metadata: str = "{}"

    @property
    def graded(self) -> bool:
        return self.success is not None

    @property
    def own_steps(self) -> tuple[Step, ...]:
        """The steps that this attempt took itself."""
        return self.steps[self.fork_step or 0 :]

    @property
    def policy_version(self) -> str | None:
        """Which weights took the steps, null where that is not known or they changed on the way."""
        versions = {step.policy_version for step in self.own_steps}
        return versions.pop() if len(versions) == 1 else None

    @property
    def totals(self) -> "Totals":
        usages = [step.usage for step in self.own_steps]
        costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
        return Totals(
            n_steps=len(self.steps),
            n_tool_calls=sum(len(step.observations) for step in self.steps),
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in usages),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in usages),
            cost_usd=sum(costs) if costs else None,
        )

    @property
    def test_commands(self) -> list[TestResult]:
        """What the test commands did, without their cases."""
        return [test for test in self.test_results if test.kind == "command"]

    @property
    def tests_passed(self) -> int | None:
        """Test commands that passed, null when not graded."""
        return sum(test.status == "passed" for test in self.test_commands) if self.graded else None

    @property
    def tests_total(self) -> int:
        """Test commands that have a result."""
        return len(self.test_commands)


class Totals(Record):
    """Sums over the steps of one attempt, of what the endpoint reported; the cost is null when it told of none.

    Steps and calls count those taken over from another attempt, tokens and cost do not: that attempt has paid them.
    """

    n_steps: int
    n_tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


class RolloutSummary(Record):
    """What the driver learns of one attempt: enough to schedule and to report, small enough to travel inline.

    Attributes:
        fails_environment: no rollout of the environment can succeed (its image or an init command fails).
        plugin_errors: what went wrong in plugins that are not critical, by name.
        aborts_run: no rollout of the run can succeed (the endpoint refuses the key or the model).
        is_bad_request: the endpoint has found fault with the request itself.
        loses_sandbox: the container was lost while the agent worked in it.
        resumption: what a new attempt can go on from.
    """

    spec: RolloutSpec
    status: Status
    terminated_reason: TerminatedReason
    failure_cause: FailureCause | None = None
    error_message: str | None = None
    retryable: bool = False
    fails_environment: bool = False
    aborts_run: bool = False
    is_bad_request: bool = False
    loses_sandbox: bool = False
    resumption: Resumption | None = None
    reward: float | None = None
    success: bool | None = None
    tests_passed: int | None = None
    tests_total: int = 0
    n_steps: int = 0
    n_tool_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    duration_s: float = 0.0
    plugin_errors: dict[str, str] = {}
