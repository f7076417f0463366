"""The frozen records that flow from the schedule to the disk.

Guarantees: every record is immutable, closed (no unknown fields) and made of plain values, so that it can be pickled,
sent between processes and written as it is. Durations are seconds on the monotonic clock, times are aware UTC.
"""

from realwork.types.actions import (
    Action,
    CallStatus,
    CommandAction,
    DoneAction,
    InvalidAction,
    Observation,
    ReadAction,
    WriteAction,
)
from realwork.types.chat import FunctionCall, Message, Reply, Role, TokenIds, ToolCall, Usage
from realwork.types.grades import NamedReward, TestKind, TestResult, TestStatus
from realwork.types.records import Record
from realwork.types.rollouts import (
    Doing,
    Phase,
    Resumption,
    RolloutSpec,
    RolloutSummary,
    Status,
    TerminatedReason,
    Timing,
    Totals,
    Trajectory,
)
from realwork.types.steps import Snapshot, Step, StepTokens, Window

__all__ = [
    "Action",
    "CallStatus",
    "CommandAction",
    "Doing",
    "DoneAction",
    "FunctionCall",
    "InvalidAction",
    "Message",
    "NamedReward",
    "Observation",
    "Phase",
    "ReadAction",
    "Record",
    "Reply",
    "Resumption",
    "Role",
    "RolloutSpec",
    "RolloutSummary",
    "Snapshot",
    "Status",
    "Step",
    "StepTokens",
    "TerminatedReason",
    "TestKind",
    "TestResult",
    "TestStatus",
    "Timing",
    "TokenIds",
    "ToolCall",
    "Totals",
    "Trajectory",
    "Usage",
    "Window",
    "WriteAction",
]
