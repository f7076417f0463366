"""What the driver learns of a trajectory, and the ledger keeps of it. Pure."""

import json

from realwork.errors import (
    ContextExceeded,
    ImageError,
    ModelError,
    ModelRefused,
    PrepareError,
    SandboxLost,
    SandboxStuck,
)
from realwork.text import valid_unicode
from realwork.types import Resumption, RolloutSpec, RolloutSummary, Trajectory

_BAD_REQUESTS = (ModelError.__name__, ContextExceeded.__name__)


def summarize(trajectory: Trajectory) -> RolloutSummary:
    """What the driver is told of `trajectory`."""
    return RolloutSummary(
        spec=_valid(trajectory.spec),
        status=trajectory.status,
        terminated_reason=trajectory.terminated_reason,
        failure_cause=trajectory.failure_cause,
        error_message=None if trajectory.error_message is None else valid_unicode(trajectory.error_message),
        retryable=trajectory.retryable,
        fails_environment=trajectory.error_type in (ImageError.__name__, PrepareError.__name__),
        aborts_run=trajectory.error_type == ModelRefused.__name__,
        is_bad_request=trajectory.error_type in _BAD_REQUESTS and not trajectory.retryable,
        loses_sandbox=trajectory.error_type in (SandboxLost.__name__, SandboxStuck.__name__)
        and bool(trajectory.messages),
        resumption=_resumption(trajectory),
        reward=trajectory.reward,
        success=trajectory.success,
        tests_passed=trajectory.tests_passed,
        tests_total=trajectory.tests_total,
        **trajectory.totals.model_dump(),
        duration_s=(trajectory.ended_at - trajectory.started_at).total_seconds(),
        plugin_errors=_plugin_errors(trajectory.plugin_data),
    )


def _valid(spec: RolloutSpec) -> RolloutSpec:
    """`spec` as its row names it."""
    return spec.model_copy(update={"environment_id": valid_unicode(spec.environment_id), "resumed": None})


def _resumption(trajectory: Trajectory) -> Resumption | None:
    """The last snapshot of an attempt whose container or process was lost."""
    if not trajectory.retryable or trajectory.failure_cause not in ("sandbox", "node"):
        return None
    for step in reversed(trajectory.steps):
        if step.state_snapshot is not None:
            return Resumption(
                parent_trajectory_id=trajectory.spec.trajectory_id,
                fork_step=step.index + 1,
                snapshot_id=step.state_snapshot.id,
            )
    return None


def _plugin_errors(plugin_data: str) -> dict[str, str]:
    said = json.loads(plugin_data)
    errors = {name: each.get("error") for name, each in said.items() if isinstance(each, dict)}
    return {valid_unicode(name): valid_unicode(str(error)) for name, error in errors.items() if error}
