"""What a plugin is made of: the hooks, the context that it gets, the base class and its five kinds.

A plugin is written once and called anywhere: each call gets an instance of its own, in whatever process is free, so
what it wants to remember it sets in the context, which comes back with the next call of the same rollout.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from realwork.config import EnvironmentConfig
from realwork.types import Action, Record, Trajectory


class PluginHookType(StrEnum):
    """The points at which plugins are called; `pre_rollout` and `post_rollout` once a run."""

    PRE_ROLLOUT = "pre_rollout"
    POST_ROLLOUT = "post_rollout"
    PRE_EPISODE = "pre_episode"
    POST_EPISODE = "post_episode"
    PRE_ACTION = "pre_action"
    POST_ACTION = "post_action"
    PRE_TEST = "pre_test"
    POST_TEST = "post_test"


class PluginType(StrEnum):
    """The kinds of plugins; `custom` answers nothing and only watches."""

    ROLLOUT_MANAGER = "rollout_manager"
    TRAJECTORY_ANALYZER = "trajectory_analyzer"
    ACTION_FILTER = "action_filter"
    ENVIRONMENT_MODIFIER = "environment_modifier"
    EPISODE_EVALUATOR = "episode_evaluator"
    CUSTOM = "custom"


NATURAL_HOOKS = {
    PluginType.ROLLOUT_MANAGER: PluginHookType.POST_EPISODE,
    PluginType.TRAJECTORY_ANALYZER: PluginHookType.POST_EPISODE,
    PluginType.ACTION_FILTER: PluginHookType.PRE_ACTION,
    PluginType.ENVIRONMENT_MODIFIER: PluginHookType.PRE_EPISODE,
    PluginType.EPISODE_EVALUATOR: PluginHookType.POST_TEST,
}
"""The hook that each kind answers; a manager is asked once for an attempt, and not told of its trajectory."""


class EpisodeResult(Record):
    """How an episode went, in short."""

    episode_id: str
    environment_id: str
    status: str
    terminated_reason: str
    success: bool | None
    reward: float | None
    tests_passed: int | None
    tests_total: int
    n_steps: int
    duration_s: float


class PluginContext:
    """What a plugin is told, and where it leaves its answer and what it wants to remember.

    Keys by hook: `environments`, `config` (pre_rollout, post_rollout); `results`, `rollout_stats` (post_rollout);
    `episode_id`, `environment_id`, `trajectory_id` (every hook of an episode); `environment_config` (pre_episode);
    `actions` (pre_action); `action`, `result` (post_action); `episode_result`, `trajectory`, `test_results` (post_test
    and post_episode); `environment_id`, `episode_count`, `results`, `rollout_stats` (managers).

    `episode_count` is how many episodes of the environment are graded. `results` are summaries of the last attempts,
    oldest first: at most 100 of the environment for managers, at most 1000 of the run for post_rollout.
    `rollout_stats` counts all of them: `attempts`, `graded`, `successful`, `failed`, `mean_reward`. All include what
    came before the run was taken up.
    """

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        self._data = dict(data or {})

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, `default` if there is none."""
        return self._data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Change the value of `key`, which must be picklable."""
        self._data[key] = value

    def update(self, values: Mapping[str, Any]) -> None:
        """Change several values."""
        self._data.update(values)

    def as_dict(self) -> dict[str, Any]:
        """A copy of all there is."""
        return dict(self._data)


class BasePlugin(ABC):
    """User code that is called at its `supported_hooks`.

    One that has a method `async def self_check(self)` says there whether it is ready: a text, or an exception, is a
    problem; `realwork plugins` calls it, a run does not.

    Attributes:
        config: the entry's `config`, unless the constructor takes it.
        enabled: one that is not is never called.
        priority: higher comes first, where the run file does not say otherwise.
        idempotent: whether a call may be made once more if its process dies.
    """

    config: Mapping[str, Any] = {}
    enabled: bool = True
    priority: int = 0
    idempotent: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Names the plugin in rows and messages; unique in a run."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The plugin's own version."""

    @property
    @abstractmethod
    def supported_hooks(self) -> list[PluginHookType]:
        """The hooks at which it is called; the one that its kind answers need not be named."""

    @property
    def plugin_type(self) -> PluginType:
        """What its answers are used for."""
        return PluginType.CUSTOM

    async def initialize(self) -> bool:
        """Get ready, before each call; false makes the call fail."""
        return True

    async def cleanup(self) -> None:
        """Let go of what `initialize` took, after each call."""
        return

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        """Answer `hook` in the context."""
        return context


class RolloutManagerPlugin(BasePlugin):
    """Decides between the rollouts of an environment how to go on; asked whatever hooks it names."""

    @property
    def plugin_type(self) -> PluginType:
        return PluginType.ROLLOUT_MANAGER

    @abstractmethod
    async def should_continue_rollout(self, context: PluginContext) -> bool:
        """Whether a further rollout of the environment is started; all managers must agree."""

    @abstractmethod
    async def modify_rollout_strategy(self, context: PluginContext) -> dict[str, Any]:
        """`timeout_multiplier` and `max_retries` of the next rollouts, each only if it is to change."""

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        if context.get("episode_count") is not None:
            context.set("should_continue", await self.should_continue_rollout(context))
            context.set("strategy", await self.modify_rollout_strategy(context))
        return context


class TrajectoryAnalyzerPlugin(BasePlugin):
    """Looks at finished trajectories; what it finds stands in the row's `plugin_data`."""

    @property
    def plugin_type(self) -> PluginType:
        return PluginType.TRAJECTORY_ANALYZER

    @abstractmethod
    async def analyze_trajectory(self, trajectory: Trajectory) -> dict[str, Any]:
        """Anything that is JSON."""

    @abstractmethod
    async def suggest_improvements(self, trajectory: Trajectory) -> list[str]:
        """Sentences for a human reader."""

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        if hook is PluginHookType.POST_EPISODE:
            trajectory = context.get("trajectory")
            context.set("analysis", await self.analyze_trajectory(trajectory))
            context.set("suggestions", await self.suggest_improvements(trajectory))
        return context


class ActionFilterPlugin(BasePlugin):
    """Decides which actions of a reply are carried out, and how."""

    @property
    def plugin_type(self) -> PluginType:
        return PluginType.ACTION_FILTER

    @abstractmethod
    async def filter_actions(self, actions: list[Action], context: PluginContext) -> list[Action]:
        """The given actions in their order; one left out is blocked, one replaced by another runs as that other."""

    def block_reason(self, action: Action) -> str:
        """What the agent is told of an action that was left out."""
        return "not allowed"

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        if hook is PluginHookType.PRE_ACTION:
            context.set("actions", await self.filter_actions(list(context.get("actions", ())), context))
        return context


class EnvironmentModifierPlugin(BasePlugin):
    """Changes the environment that a rollout runs with."""

    @property
    def plugin_type(self) -> PluginType:
        return PluginType.ENVIRONMENT_MODIFIER

    @abstractmethod
    async def modify_environment(
        self, environment_config: EnvironmentConfig, context: PluginContext
    ) -> EnvironmentConfig:
        """The environment, changed in anything but `id` and its folders; a dictionary of its fields will do."""

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        if hook is PluginHookType.PRE_EPISODE:
            changed = await self.modify_environment(context.get("environment_config"), context)
            context.set("environment_config", changed)
        return context


class EpisodeEvaluatorPlugin(BasePlugin):
    """Judges graded episodes beside the tests."""

    @property
    def plugin_type(self) -> PluginType:
        return PluginType.EPISODE_EVALUATOR

    @abstractmethod
    async def evaluate_episode(self, episode_result: EpisodeResult, trajectory: Trajectory) -> dict[str, Any]:
        """Named rewards, finite numbers; the one called `reward` replaces the tests' reward."""

    async def execute(self, hook: PluginHookType, context: PluginContext) -> PluginContext:
        if hook is PluginHookType.POST_TEST:
            result, trajectory = context.get("episode_result"), context.get("trajectory")
            context.set("evaluation", await self.evaluate_episode(result, trajectory))
        return context
