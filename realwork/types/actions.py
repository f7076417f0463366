"""What an agent does, and what it is answered."""

from typing import Annotated, Literal

from pydantic import Field

from realwork.types.records import Record

CallStatus = Literal["ok", "error", "timeout", "invalid", "blocked", "not_executed"]


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
        given_call_id: what the model wrote in place of `call_id`, null where that is its own.
        slot_wait_s: what the command waited for a CPU slot, which is no part of `duration_s`.
        decision: "allowed", "blocked by NAME" or "rewritten by NAME".
    """

    call_id: str
    given_call_id: str | None = None
    tool_name: str
    status: CallStatus
    output: str = ""
    error: str = ""
    exit_code: int | None = None
    output_bytes: int = 0
    truncated: bool = False
    duration_s: float = 0.0
    slot_wait_s: float = 0.0
    decision: str = "allowed"
