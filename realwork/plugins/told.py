"""What plugins are told at a hook, and how it stands in the context that they get."""

from collections.abc import Sequence
from typing import Any

from realwork.config import EnvironmentConfig, RunConfig
from realwork.plugins.base import EpisodeResult, PluginHookType
from realwork.types import Action, Observation, Record, RolloutSpec, RolloutSummary, Trajectory


class HookCall(Record):
    """What plugins are told at a hook; the fields of other hooks are null."""

    hook: PluginHookType
    spec: RolloutSpec | None = None
    config: RunConfig | None = None
    environment: EnvironmentConfig | None = None
    actions: tuple[Action, ...] | None = None
    action: Action | None = None
    result: Observation | None = None
    trajectory: Trajectory | None = None
    environment_id: str | None = None
    results: tuple[RolloutSummary, ...] | None = None

    def context(self) -> dict[str, Any]:
        """The keys and values of the plugin's context; what it may answer with changes is its own copy."""
        keys: dict[str, Any] = {"results": self.results, "action": self.action, "result": self.result}
        if self.spec is not None:
            keys |= {
                "episode_id": self.spec.rollout_id,
                "environment_id": self.spec.environment_id,
                "trajectory_id": self.spec.trajectory_id,
            }
        if self.config is not None:
            keys |= {"environments": self.config.environments, "config": self.config}
        if self.actions is not None:
            keys["actions"] = [action.model_copy(deep=True) for action in self.actions]
        if self.environment is not None:
            keys["environment_config"] = self.environment.model_copy(deep=True)
        if self.trajectory is not None:
            keys |= {
                "trajectory": self.trajectory,
                "test_results": self.trajectory.test_results,
                "episode_result": episode_result(self.trajectory),
            }
        if self.results is not None:
            keys["results"] = list(self.results)
            if self.environment_id is not None:
                keys |= {"environment_id": self.environment_id, "episode_count": len(self.results)}
            else:
                keys["rollout_stats"] = _stats(self.results)
        return {key: value for key, value in keys.items() if value is not None}


def episode_result(trajectory: Trajectory) -> EpisodeResult:
    """`trajectory` in short."""
    return EpisodeResult(
        episode_id=trajectory.spec.rollout_id,
        environment_id=trajectory.spec.environment_id,
        status=trajectory.status,
        terminated_reason=trajectory.terminated_reason,
        success=trajectory.success,
        reward=trajectory.reward,
        tests_passed=trajectory.tests_passed,
        tests_total=trajectory.tests_total,
        n_steps=len(trajectory.steps),
        duration_s=(trajectory.ended_at - trajectory.started_at).total_seconds(),
    )


def _stats(results: Sequence[RolloutSummary]) -> dict[str, Any]:
    """Totals of a run for `post_rollout`."""
    rewards = [each.reward for each in results if each.reward is not None]
    return {
        "attempts": len(results),
        "graded": len(rewards),
        "successful": sum(each.success is True for each in results),
        "failed": sum(each.status == "failed" for each in results),
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
    }
