"""The run file's model: every section, field, default and unit, frozen and closed.

A `RunConfig` that exists is valid in itself; whether its folders, images and key can be had is asked elsewhere. Types
are strict: "5" is no number, `true` no integer, an integer does for a float. What may be secret shows in no `repr` and
in no validation error. Loading a file, with every mistake named at once, is `realwork.runfile`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from realwork.fields import (
    LARGEST_COUNT,
    LONGEST_S,
    BaseUrl,
    Count,
    CountOrZero,
    Line,
    SandboxPath,
    Seconds,
    Section,
    Text,
    Value,
    VariableName,
)
from realwork.limits import SandboxLimits

DEFAULT_MODEL = "anthropic/claude-sonnet-4"
DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
SCRIPTED_PREFIX = "scripted:"
DUPLICATE_IDS = "duplicate_ids"


class TimeoutConfig(Section):
    """Seconds until something is cut off."""

    global_timeout: Seconds = 1800.0
    """Seconds an episode may take, from the opened sandbox to the last action; grading has its own time."""
    command_timeout: Seconds = 300.0
    """Seconds a command may take when the model does not ask for less; also the most it may ask for."""
    test_timeout: Seconds = 120.0
    """Seconds one test command may take."""

    def stretched(self, factor: float) -> "TimeoutConfig":
        """Every timeout multiplied by `factor`."""
        return TimeoutConfig(**{name: min(seconds * factor, LONGEST_S) for name, seconds in self.model_dump().items()})


class GradingConfig(Section):
    """Where and with what the tests run."""

    mode: Literal["fresh", "same"] = "fresh"
    """`fresh`: in a new sandbox that gets the working directory alone; `same`: where the agent worked."""
    restage_folders: list[Line] | None = None
    """Names of the copied folders that are pristine again for the tests; null: all. Leave out what the agent edits."""


class UnitTest(Section):
    """A test command; in the run file its text alone does."""

    command: Text
    """Run through `/bin/sh -c` in the working directory; it has to exit 0."""
    expected_tests: Count | None = None
    """How many tests it has to tell of as passed, through pytest or JUnit XML, to pass itself."""
    junit: Line | None = None
    """The JUnit XML that the command writes, a path from the working directory; `*` and `?` are wildcards."""

    @model_validator(mode="before")
    @classmethod
    def _from_command(cls, value: object) -> object:
        return {"command": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _as_command(self, as_object: SerializerFunctionWrapHandler) -> Any:
        """The text alone where there is no more, as it is written."""
        return as_object(self) if self.expected_tests or self.junit else self.command


class EnvironmentConfig(Section):
    """A task and the place it happens in."""

    id: Annotated[Line, Field(max_length=200)]
    """Names the environment in rows and tables; unique in the run file."""
    docker_image: Line
    """The image of its sandbox; it needs a `/bin/sh`."""
    prompt: Text
    """The first user message."""
    unit_tests: Annotated[list[UnitTest], Field(min_length=1)]
    """Commands that grade the work, each a text or an object; the reward is the share of them that pass."""
    init_commands: list[Text] = []
    """Run in order through `/bin/sh -c` in the working directory, once per node, into an image that is kept for the
    next run; one that fails fails the environment."""
    working_directory: SandboxPath = "/workspace"
    """Where commands start and relative paths begin; created if missing."""
    environment_variables: Annotated[dict[VariableName, Value], Field(repr=False)] = {}
    """For container, commands and tests."""
    copy_folders: list[Line] = []
    """Copied in before init as `<working_directory>/<basename>`, and pristine again for the tests."""
    test_folders: list[Line] = []
    """Copied to `<working_directory>/<basename>` for the tests alone; the agent's sandbox never has them."""
    grading_config: GradingConfig | None = None
    """How this environment is graded; fields left out take those of the run."""
    network: Line | None = None
    """Network while the agent works and the tests run; null takes `network` of the sandbox_config."""
    init_network: Line = "bridge"
    """Network of the init commands."""
    timeout_config: TimeoutConfig | None = None
    """Timeouts of this environment; fields left out take those of the run."""
    sandbox_config: SandboxLimits | None = None
    """Limits of this environment's sandboxes; fields left out take those of the run."""
    max_retries: CountOrZero = 3
    """New attempts of a rollout after a retryable failure."""

    @property
    def needs_preparation(self) -> bool:
        """Whether something is copied in or run before the agent can begin."""
        return bool(self.init_commands or self.copy_folders)

    def completed(self, timeouts: TimeoutConfig, limits: SandboxLimits) -> "EnvironmentConfig":
        """The same environment, what its own sections leave out taken from those of the run."""
        own: dict[str, Section] = {}
        if self.timeout_config is not None:
            given = self.timeout_config.model_dump(exclude_unset=True)
            own["timeout_config"] = TimeoutConfig(**(timeouts.model_dump() | given))
        if self.sandbox_config is not None:
            given = self.sandbox_config.model_dump(exclude_unset=True)
            common = limits.model_dump(include=set(SandboxLimits.model_fields))
            own["sandbox_config"] = SandboxLimits(**(common | given))
        return self.model_copy(update=own)


class LlmConfig(Section):
    """The model and how it is asked."""

    model: Line = DEFAULT_MODEL
    """The endpoint's name for the model, or `scripted:FILE` for the built-in one that plays a file of replies."""
    api_key: SecretStr | None = None
    """A `${NAME}` reference; a literal key works and draws a warning."""
    base_url: BaseUrl = DEFAULT_BASE_URL
    """Root of an OpenAI-compatible API, up to `/v1`."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Sampling temperature."""
    max_tokens: Count = 4096
    """Most tokens of one reply."""
    timeout: Seconds = 60.0
    """Seconds one request may take; retries start anew within the episode's time."""
    enable_caching: bool = True
    """Accepted, without effect: nothing is cached, so that no two samples ever share an answer."""
    cache_size: CountOrZero = 100
    """Accepted, without effect."""
    max_context_messages: Annotated[int, Field(ge=4, le=LARGEST_COUNT)] = 50
    """Most messages sent to the model; older pairs of calls and results are left out first."""
    max_output_length: Annotated[int, Field(ge=100, le=LARGEST_COUNT)] = 2000
    """Characters of an observation that the model sees."""
    track_token_usage: bool = True
    """Write the endpoint's token counts into steps and totals."""
    warn_high_usage: bool = True
    """Warn once when a rollout passes 100,000 tokens."""

    @property
    def is_scripted(self) -> bool:
        return self.model.startswith(SCRIPTED_PREFIX)


class RolloutConfig(Section):
    """How many rollouts run at once and where they are written."""

    max_parallel_rollouts: Count = 4
    """Rollouts in flight, over all environments."""
    trajectory_output_path: Line = "trajectories"
    """The directory in which each run makes one of its own."""
    enable_plugins: bool = True
    """Whether plugins run."""
    save_trajectory_interval: Count = 10
    """Steps after which a running episode hands what it has to the store; a lost process leaves a row with them."""
    state_persistence_enabled: bool = True
    """Whether a running episode is kept: its steps are handed over and snapshots of its container are taken."""
    snapshot_interval: Count = 5
    """Steps after which the files of a running episode's container are kept as an image of its engine."""
    keep_snapshots: bool = False
    """Whether snapshots stay on the engine; else an episode keeps its newest one, until its rollout has its row."""
    rollouts_per_actor: Count | None = None
    """Rollouts after which an actor's process is replaced; null: never, 1: a fresh process each time."""
    max_steps: Count = 100
    """Most replies of one episode; then it ends with `action_limit`."""
    max_episode_tokens: Count | None = None
    """Most prompt and completion tokens of one episode; then it ends with `token_limit`."""


class EpisodeControlConfig(Section):
    """How many episodes of each environment are played."""

    max_episodes: Count = 1
    """Episodes per environment."""
    max_episodes_per_env: Count | None = None
    """Overrides `max_episodes`."""
    stop_on_success: bool = False
    """Start no further episode of an environment after its first success."""
    min_success_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """After at least 3 graded episodes, start no further one of an environment whose success rate has reached this."""
    safety_limit: Count = 100
    """Absolute bound on the episodes of one environment."""

    @property
    def episodes_per_environment(self) -> int:
        return min(self.max_episodes_per_env or self.max_episodes, self.safety_limit)


class SandboxConfig(SandboxLimits):
    """The kind of every sandbox, and the limits of those whose environment names none."""

    kind: Literal["docker", "local"] = "docker"
    """`local`, a temporary folder on this machine without isolation, is taken from `--sandbox local` alone."""


class PluginEntry(Section):
    """A module whose concrete plugin classes are loaded."""

    module: Line
    """Dotted name, importable where the run is started."""
    config: Annotated[dict[str, Any], Field(repr=False)] = {}
    """Given to the constructor of each of its plugins."""
    priority: int = 0
    """Higher comes first."""
    timeout: Seconds = 30.0
    """Seconds one call may take."""
    critical: bool = False
    """Whether a failure of the plugin fails the rollout."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"module": value} if isinstance(value, str) else value


class RunConfig(Section):
    """The whole run file; what environments take from the run's own sections stands before them."""

    timeout_config: TimeoutConfig = TimeoutConfig()
    sandbox_config: SandboxConfig = SandboxConfig()
    environments: Annotated[list[EnvironmentConfig], Field(min_length=1)]
    """The tasks; at least one."""
    rollout_config: RolloutConfig
    """How many rollouts run at once and where they are written; `{}` takes the defaults."""
    template_prompt: Text
    """The system message."""
    episode_control_config: EpisodeControlConfig = EpisodeControlConfig()
    llm_config: LlmConfig = LlmConfig()
    grading_config: GradingConfig = GradingConfig()
    plugins: list[PluginEntry] = []

    @field_validator("environments")
    @classmethod
    def _unique_ids(cls, value: list[EnvironmentConfig]) -> list[EnvironmentConfig]:
        first: dict[str, int] = {}
        twice = [index for index, one in enumerate(value) if first.setdefault(one.id, index) != index]
        if twice:
            said = "; ".join(f"environments[{i}].id: environments[{first[value[i].id]}] has the same id" for i in twice)
            context = {"said": said, "indexes": twice, "firsts": [first[value[i].id] for i in twice]}
            raise PydanticCustomError(DUPLICATE_IDS, "{said}", context)
        return value

    @field_validator("environments")
    @classmethod
    def _inherit(cls, value: list[EnvironmentConfig], info: ValidationInfo) -> list[EnvironmentConfig]:
        timeouts: TimeoutConfig = info.data.get("timeout_config", TimeoutConfig())
        limits: SandboxLimits = info.data.get("sandbox_config", SandboxLimits())
        return [one.completed(timeouts, limits) for one in value]

    def environment(self, environment_id: str) -> EnvironmentConfig:
        """The environment of that id.

        Raises:
            KeyError: there is none.
        """
        for environment in self.environments:
            if environment.id == environment_id:
                return environment
        raise KeyError(environment_id)

    def timeouts(self, environment: EnvironmentConfig) -> TimeoutConfig:
        """The timeouts that hold for `environment`."""
        return environment.timeout_config or self.timeout_config

    def grading(self, environment: EnvironmentConfig) -> GradingConfig:
        """How `environment` is graded."""
        own = environment.grading_config.model_dump(exclude_unset=True) if environment.grading_config else {}
        return GradingConfig(**(self.grading_config.model_dump() | own))

    def network(self, environment: EnvironmentConfig) -> str:
        """The network of `environment` while the agent works."""
        return environment.network or self.limits(environment).network

    def limits(self, environment: EnvironmentConfig) -> SandboxLimits:
        """The limits that hold for the sandboxes of `environment`."""
        return environment.sandbox_config or self.sandbox_config
