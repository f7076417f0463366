"""One attempt of one rollout: open sandbox and model, play, grade, close.

The one failure boundary: whatever happens becomes a `Trajectory` with a typed cause, and a failure of ours never
becomes a reward. Everything opened is closed before the trajectory is returned, on every way out, cancellation
included.
"""

import asyncio
import json
import platform
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import SecretStr

import realwork
from realwork.config import EnvironmentConfig, RunConfig
from realwork.environment import Environment, PackedFolder
from realwork.episode import Episode, EpisodeLimits
from realwork.errors import (
    EpisodeError,
    FailureCause,
    GradingError,
    ImageError,
    ModelRefused,
    PrepareError,
    SandboxError,
)
from realwork.grading import GRADING_MODE, Grade, grade
from realwork.model.base import Model
from realwork.model.scripted import Script
from realwork.plugins.hooks import Hooks, NoHooks, longest_hooks_s
from realwork.plugins.panel import PackedPlugin
from realwork.sandbox.base import Sandbox
from realwork.text import tail
from realwork.tools import tool_schemas
from realwork.types import (
    NamedReward,
    Record,
    RolloutSpec,
    RolloutSummary,
    Status,
    TerminatedReason,
    Timing,
    Trajectory,
)

GRADED_REASONS = frozenset(
    {"completed", "completed_naturally", "global_timeout", "action_limit", "context_limit", "token_limit"}
)
_REASON_OF_CAUSE: dict[FailureCause, TerminatedReason] = {
    "sandbox": "environment_error",
    "model": "llm_error",
    "grading": "grading_error",
    "node": "environment_error",
    "plugin": "environment_error",
    "cancelled": "cancelled",
}
OVERTIME_S = 30.0


class RolloutSettings(Record):
    """What every rollout of a run shares.

    Attributes:
        config: without the key, which stands in `api_key` alone.
        script: what the built-in model plays, null for a real one.
        folders: the packed `copy_folders` by environment id.
        environments_json: what a row may show of each environment, nothing secret, by environment id.
        timeout_multiplier: what a rollout manager made of the timeouts; they stand in `config` already multiplied.
    """

    config: RunConfig
    api_key: SecretStr | None = None
    script: Script | None = None
    folders: dict[str, tuple[PackedFolder, ...]] = {}
    environments_json: dict[str, str] = {}
    plugins: tuple[PackedPlugin, ...] = ()
    timeout_multiplier: float = 1.0

    def stretched(self, factor: float) -> "RolloutSettings":
        """The same settings, every timeout of an environment multiplied by `factor`."""
        if factor == 1.0:
            return self
        config = self.config
        environments = [
            each.model_copy(update={"timeout_config": config.timeouts(each).stretched(factor)})
            for each in config.environments
        ]
        changed = config.model_copy(update={"environments": environments})
        return self.model_copy(update={"config": changed, "timeout_multiplier": factor})


class Backends(Protocol):
    """Opens what a rollout needs."""

    async def ensure_image(self, environment: EnvironmentConfig) -> None:
        """Make sure that the image of `environment` is here.

        Raises:
            ImageError: it cannot be had.
        """

    def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AbstractAsyncContextManager[Sandbox]:
        """A sandbox of its own for `spec`, ready for commands."""

    def open_model(self, spec: RolloutSpec) -> AbstractAsyncContextManager[Model]:
        """A conversation of its own for `spec`."""


def longest_s(config: RunConfig, environment: EnvironmentConfig) -> float:
    """Seconds after which an attempt has ended, whatever happened; its sandbox ends itself then."""
    timeouts = config.timeouts(environment)
    init_s = timeouts.global_timeout * len(environment.init_commands)
    tests_s = timeouts.test_timeout * len(environment.unit_tests)
    return init_s + timeouts.global_timeout + tests_s + longest_hooks_s(config) + 4 * OVERTIME_S


OnSteps = Callable[[Trajectory], Awaitable[None]]


async def run_rollout(
    spec: RolloutSpec,
    settings: RolloutSettings,
    backends: Backends,
    hooks: Hooks,
    *,
    node_id: str = "",
    queue_s: float = 0.0,
    on_steps: OnSteps | None = None,
) -> Trajectory:
    """Play `spec` and grade it; never raises, but for a second cancellation.

    Args:
        queue_s: seconds that the rollout waited before it was started, for the row.
        on_steps: called with the unfinished record every `save_trajectory_interval` steps.
    """
    attempt = _Attempt(spec, settings, hooks, node_id=node_id, queue_s=queue_s, on_steps=on_steps)
    with _recorded(attempt):
        await attempt.run(backends)
    with _recorded(attempt):
        return await hooks.evaluate(attempt.trajectory())
    return hooks.annotate(attempt.trajectory())


@contextmanager
def _recorded(attempt: "_Attempt") -> Iterator[None]:
    """Whatever fails in the block ends there and stands in the record of `attempt`."""
    try:
        yield
    except asyncio.CancelledError:
        attempt.fail("cancelled", "Cancelled", "the run was stopped before the rollout ended", retryable=False)
    except EpisodeError as error:
        attempt.fail(error.cause, type(error).__name__, str(error), retryable=error.retryable)
    except Exception as error:  # noqa: BLE001 - the boundary: a defect of ours must not lose the row
        attempt.fail("node", type(error).__name__, str(error), retryable=False)


class _Attempt:
    """The record of one attempt while it is made."""

    def __init__(
        self,
        spec: RolloutSpec,
        settings: RolloutSettings,
        hooks: Hooks,
        *,
        node_id: str,
        queue_s: float,
        on_steps: OnSteps | None,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._hooks = hooks
        self._on_steps = on_steps
        self._environment = settings.config.environment(spec.environment_id)
        self._episode: Episode | None = None
        self._grade: Grade | None = None
        self._seconds = {"queue_s": queue_s}
        self._started_at = datetime.now(UTC)
        self._fields: dict[str, Any] = {"node_id": node_id, "model": settings.config.llm_config.model}
        self._status: Status = "failed"
        self._reason: TerminatedReason = "environment_error"

    async def run(self, backends: Backends) -> None:
        """Open, play, grade, close."""
        self._environment = await self._hooks.modify(self._environment)
        began = time.monotonic()
        await backends.ensure_image(self._environment)
        self._seconds["image_s"] = time.monotonic() - began
        began = time.monotonic()
        async with backends.open_sandbox(self._spec, self._environment) as sandbox:
            self._fields |= {"image_digest": sandbox.image_digest, "node_id": sandbox.node_name}
            environment = await self._prepare(sandbox)
            self._seconds["boot_s"] = time.monotonic() - began
            async with backends.open_model(self._spec) as model:
                self._fields |= {"model": model.name, "base_url_host": model.host}
                reason = await self._play(environment, model)
            await self._run_tests(sandbox)
        self._status = "completed" if reason in ("completed", "completed_naturally") else "truncated"
        self._reason = reason

    async def _prepare(self, sandbox: Sandbox) -> Environment:
        config = self._settings.config
        environment = Environment(
            sandbox,
            self._environment,
            config.timeouts(self._environment),
            folders=self._folders,
            output_limit_bytes=config.sandbox_config.output_limit_kib << 10,
        )
        await environment.prepare(network=config.network(self._environment))
        return environment

    @property
    def _folders(self) -> tuple[PackedFolder, ...]:
        return self._settings.folders.get(self._environment.id, ())

    async def _play(self, environment: Environment, model: Model) -> TerminatedReason:
        config = self._settings.config
        duration_s = config.timeouts(self._environment).global_timeout
        self._episode = Episode(
            model,
            environment,
            self._hooks,
            EpisodeLimits(
                duration_s=duration_s,
                max_steps=config.rollout_config.max_steps,
                max_tokens=config.rollout_config.max_episode_tokens,
                max_context_messages=config.llm_config.max_context_messages,
                max_output_length=config.llm_config.max_output_length,
            ),
            system=config.template_prompt,
            prompt=self._environment.prompt,
            after_step=self._hand_over,
        )
        began = time.monotonic()
        try:
            async with asyncio.timeout(duration_s + OVERTIME_S):
                return await self._episode.play()
        except TimeoutError as error:
            raise SandboxError(f"the episode did not end {OVERTIME_S:g} s after its time was over") from error
        finally:
            self._seconds["agent_s"] = time.monotonic() - began

    async def _hand_over(self) -> None:
        rollout = self._settings.config.rollout_config
        steps = len(self._episode.steps) if self._episode else 0
        if self._on_steps and rollout.state_persistence_enabled and steps % rollout.save_trajectory_interval == 0:
            await self._on_steps(self.trajectory())

    async def _run_tests(self, sandbox: Sandbox) -> None:
        config = self._settings.config
        timeout_s = config.timeouts(self._environment).test_timeout
        self._hooks.testing()
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s * len(self._environment.unit_tests) + OVERTIME_S):
                self._grade = await grade(
                    sandbox,
                    self._environment,
                    self._folders,
                    test_timeout_s=timeout_s,
                    limit_bytes=config.sandbox_config.output_limit_kib << 10,
                )
        except TimeoutError as error:
            raise GradingError("the tests did not end in their time") from error
        finally:
            self._seconds["grade_s"] = time.monotonic() - began

    def fail(self, cause: FailureCause, kind: str, message: str, *, retryable: bool) -> None:
        """Record a failure of ours: whatever was graded before does not count."""
        self._grade = None
        self._status = "cancelled" if cause == "cancelled" else "failed"
        self._reason = _REASON_OF_CAUSE[cause]
        self._fields |= {
            "failure_cause": cause,
            "error_type": kind,
            "error_message": tail(message, 4000),
            "retryable": retryable,
        }

    def trajectory(self) -> Trajectory:
        """The record as it stands now."""
        config = self._settings.config
        llm = config.llm_config
        episode = self._episode
        steps = tuple(episode.steps) if episode else ()
        graded: dict[str, Any] = {}
        if self._grade is not None:
            reward = self._grade.reward
            graded = {
                "reward": reward,
                "rewards": (NamedReward(name="tests", value=reward),),
                "success": self._grade.success,
                "test_results": self._grade.test_results,
                "grading_mode": GRADING_MODE,
            }
        timing = Timing(
            **self._seconds, llm_s=sum(step.llm_s for step in steps), env_s=sum(step.env_s for step in steps)
        )
        sampling = {"temperature": llm.temperature, "max_tokens": llm.max_tokens, "seed": self._spec.seed}
        return Trajectory(
            spec=self._spec,
            status=self._status,
            terminated_reason=self._reason,
            started_at=self._started_at,
            ended_at=datetime.now(UTC),
            messages=tuple(episode.messages) if episode else (),
            tools=json.dumps(tool_schemas()),
            steps=steps,
            sampling_params=json.dumps(sampling),
            timing=timing,
            docker_image=self._environment.docker_image,
            network=config.network(self._environment),
            environment=self._settings.environments_json.get(self._environment.id, "{}"),
            metadata=json.dumps(self._metadata()),
            **graded,
            **self._fields,
        )

    def _metadata(self) -> dict[str, Any]:
        factor = self._settings.timeout_multiplier
        stretched = {} if factor == 1.0 else {"timeout_multiplier": factor}
        return {"realwork_version": realwork.__version__, "python": platform.python_version()} | stretched


def failed_rollout(spec: RolloutSpec, settings: RolloutSettings, error: EpisodeError) -> Trajectory:
    """The record of an attempt that `error` ended before its own process could write one."""
    attempt = _Attempt(spec, settings, NoHooks(), node_id="", queue_s=0.0, on_steps=None)
    attempt.fail(error.cause, type(error).__name__, str(error), retryable=error.retryable)
    return attempt.trajectory()


def with_steps(lost: Trajectory, unfinished: Trajectory | None) -> Trajectory:
    """`lost` with the steps and messages of the last unfinished record of the attempt, if it had handed one over."""
    if unfinished is None:
        return lost
    kept = ("messages", "steps", "timing", "started_at", "node_id", "image_digest", "model", "base_url_host")
    return lost.model_copy(update={name: getattr(unfinished, name) for name in kept})


def summarize(trajectory: Trajectory) -> RolloutSummary:
    """What the driver is told of `trajectory`."""
    usages = [step.usage for step in trajectory.steps]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return RolloutSummary(
        spec=trajectory.spec,
        status=trajectory.status,
        terminated_reason=trajectory.terminated_reason,
        failure_cause=trajectory.failure_cause,
        error_message=trajectory.error_message,
        retryable=trajectory.retryable,
        fails_environment=trajectory.error_type in (ImageError.__name__, PrepareError.__name__),
        aborts_run=trajectory.error_type == ModelRefused.__name__,
        reward=trajectory.reward,
        success=trajectory.success,
        tests_passed=trajectory.tests_passed,
        tests_total=len(trajectory.test_results),
        n_steps=len(trajectory.steps),
        n_tool_calls=sum(len(step.observations) for step in trajectory.steps),
        prompt_tokens=sum(usage.prompt_tokens or 0 for usage in usages),
        completion_tokens=sum(usage.completion_tokens or 0 for usage in usages),
        cost_usd=sum(costs) if costs else None,
        duration_s=(trajectory.ended_at - trajectory.started_at).total_seconds(),
    )
