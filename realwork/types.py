"""The frozen records that flow from the schedule to the disk.

Guarantees: every record is immutable, closed (no unknown fields) and made of plain values, so that it can be pickled,
sent between processes and written as it is. Durations are seconds on the monotonic clock, times are aware UTC.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from realwork.errors import FailureCause

Role = Literal["system", "user", "assistant", "tool"]
CallStatus = Literal["ok", "error", "timeout", "invalid", "blocked", "not_executed"]
Status = Literal["completed", "truncated", "failed", "cancelled"]
TestStatus = Literal["passed", "failed", "skipped", "error", "timeout"]
TestKind = Literal["command", "case"]
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


class Record(BaseModel):
    """A frozen, closed record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FunctionCall(Record):
    """What the model wrote: `arguments` is its text, valid JSON or not."""

    name: str
    arguments: str


class ToolCall(Record):
    """One call of a tool, as the model wrote it."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Record):
    """One message of the conversation, in the roles and fields of the OpenAI chat format."""

    role: Role
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Usage(Record):
    """What one completion used, as the endpoint said it; null where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None


class Reply(Record):
    """One accepted completion.

    Attributes:
        message: role assistant; what the model wrote, raw.
        model: the model that the endpoint says has answered.
        retries: requests that failed before this one was accepted.
    """

    message: Message
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    retries: int = 0


class CommandAction(Record):
    """Run a shell command."""

    kind: Literal["command"] = "command"
    command: str
    timeout_s: float | None = None
    working_directory: str | None = None
    background: bool = False


class WriteAction(Record):
    """Write a text file."""

    kind: Literal["file_write"] = "file_write"
    path: str
    content: str


class ReadAction(Record):
    """Read a text file."""

    kind: Literal["file_read"] = "file_read"
    path: str


class DoneAction(Record):
    """The agent says that it has finished."""

    kind: Literal["done"] = "done"
    message: str = ""


class InvalidAction(Record):
    """A tool call that cannot be carried out; `problem` is what the agent is told."""

    kind: Literal["invalid"] = "invalid"
    problem: str


Action = Annotated[CommandAction | WriteAction | ReadAction | DoneAction | InvalidAction, Field(discriminator="kind")]


class Observation(Record):
    """The answer to one action.

    Attributes:
        output: standard output, or the content that was read.
        error: standard error, or why nothing was done.
        output_bytes: how much the command wrote in all, on both streams.
        truncated: whether bytes were left out of `output` or `error`.
        decision: "allowed", "blocked by NAME" or "rewritten by NAME".
    """

    call_id: str
    tool_name: str
    status: CallStatus
    output: str = ""
    error: str = ""
    exit_code: int | None = None
    output_bytes: int = 0
    truncated: bool = False
    duration_s: float = 0.0
    decision: str = "allowed"


class Snapshot(Record):
    """The files of a sandbox at one moment, kept by the engine of one node; processes are no part of it.

    Attributes:
        id: what the sandbox is restored from.
        size_bytes: what it holds beyond the image that the sandbox was made of.
    """

    id: str
    taken_at: datetime
    size_bytes: int


class Step(Record):
    """One reply with the observations of its calls, in the order of the calls.

    Attributes:
        message_index: where the reply stands in the trajectory's messages.
        env_s: seconds spent on the actions.
        error: why the reply could not be used as it was, or null.
        state_snapshot: taken when the step had ended, null if none was.
    """

    index: int
    message_index: int
    started_at: datetime
    finish_reason: str | None = None
    usage: Usage = Usage()
    llm_s: float = 0.0
    env_s: float = 0.0
    retries: int = 0
    error: str | None = None
    observations: tuple[Observation, ...] = ()
    state_snapshot: Snapshot | None = None


class TestResult(Record):
    """What one test command did, or one of the tests that it ran and told of: a case.

    Attributes:
        name: the command's own text, or the id that the test runner gives the case.
        command: the one that ran the case.
        status: a command passes or fails, or its time runs out; a case may be skipped or never get as far as its body.
        started_at: of a case: when its command began.
        exit_code: null for a case, and for a command whose time ran out.
        error: standard error, or why a case, or a command that exited 0, has not passed.
    """

    __test__ = False

    name: str
    kind: TestKind = "command"
    command: str
    status: TestStatus
    started_at: datetime
    duration_s: float
    exit_code: int | None = None
    output: str = ""
    error: str = ""


class NamedReward(Record):
    """One component of the reward."""

    name: str
    value: float
    weight: float = 1.0


class Timing(Record):
    """Where the seconds of one attempt went."""

    queue_s: float = 0.0
    image_s: float = 0.0
    boot_s: float = 0.0
    agent_s: float = 0.0
    llm_s: float = 0.0
    env_s: float = 0.0
    grade_s: float = 0.0
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
        sample_index: position in the group of the environment's episodes, from 0.
        attempt: 0, or higher after a retryable failure.
        seed: the seed of this sample's completions.
        resumed: what the attempt is to go on from, if that is still there; no part of the row.
    """

    run_id: str
    environment_id: str
    sample_index: int
    attempt: int = 0
    seed: int = 0
    resumed: Resumption | None = None

    @property
    def rollout_id(self) -> str:
        return f"{self.environment_id}:{self.sample_index}"

    @property
    def group_id(self) -> str:
        return f"{self.run_id}:{self.environment_id}"

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
