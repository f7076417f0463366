"""What plugins are told at a hook, and how it stands in the context that they get."""

from typing import Any

from realwork.config import EnvironmentConfig, RunConfig
from realwork.plugins.base import EpisodeResult, PluginHookType
from realwork.types import Action, Observation, Record, RolloutSpec, RolloutSummary, Trajectory


class RolloutStats(Record):
    """Totals over the attempts of an environment, or of the run, those before it was taken up included.

    Attributes:
        graded: episodes with a grade; `successful` are those of them that passed every test.
        failed: attempts that failed, retried ones too.
        mean_reward: of the graded ones, null where there is none.
    """

    attempts: int = 0
    graded: int = 0
    successful: int = 0
    failed: int = 0
    mean_reward: float | None = None


class HookCall(Record):
    """What plugins are told at a hook; the fields of other hooks are null.

    Attributes:
        results: the last attempts, oldest first; `stats` counts all of them.
    """

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
    stats: RolloutStats | None = None

    def context(self) -> dict[str, Any]:
        """The keys and values of the plugin's context; what it may answer with changes is its own copy."""
        keys: dict[str, Any] = {"action": self.action, "result": self.result}
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
        if self.results is not None and self.stats is not None:
            keys |= {"results": list(self.results), "rollout_stats": self.stats.model_dump()}
            if self.environment_id is not None:
                keys |= {"environment_id": self.environment_id, "episode_count": self.stats.graded}
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
