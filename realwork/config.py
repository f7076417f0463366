"""The run file's model: every section, field, default and unit, frozen and closed.

A `RunConfig` that exists is valid in itself; whether its folders, images and key can be had is asked elsewhere. Loading
a file, with every mistake named at once, is `realwork.runfile`.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

DEFAULT_MODEL = "anthropic/claude-sonnet-4"
DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
SCRIPTED_PREFIX = "scripted:"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number of seconds")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Seconds = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Text = Annotated[str, AfterValidator(_not_blank)]
Command = Annotated[str, AfterValidator(_not_blank), AfterValidator(_no_nul)]


class Section(BaseModel):
    """A closed, frozen section: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TimeoutConfig(Section):
    """Seconds until something is cut off."""

    global_timeout: Seconds = 1800.0
    """Seconds an episode may take, from the opened sandbox to the last action; grading has its own time."""
    command_timeout: Seconds = 300.0
    """Seconds a command may take when the model does not ask for less; also the most it may ask for."""
    test_timeout: Seconds = 120.0
    """Seconds one test command may take."""


class EnvironmentConfig(Section):
    """A task and the place it happens in."""

    id: Annotated[Text, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """Names the environment in rows and tables; unique in the run file."""
    docker_image: Text
    """The image of its sandbox; it needs a `/bin/sh`."""
    prompt: Text
    """The first user message."""
    unit_tests: Annotated[list[Command], Field(min_length=1)]
    """Commands that grade the work; the reward is the share of them that exits 0."""
    init_commands: list[Command] = []
    """Run in order through `/bin/sh -c` in the working directory before the episode; one that fails fails the environment."""
    working_directory: Annotated[str, Field(pattern=r"^/[^\x00]*$")] = "/workspace"
    """Where commands start and relative paths begin; created if missing."""
    environment_variables: dict[
        Annotated[str, Field(pattern=r"^[^=\x00]+$")], Annotated[str, AfterValidator(_no_nul)]
    ] = {}
    """For container, commands and tests."""
    copy_folders: list[Text] = []
    """Copied in before init as `<working_directory>/<basename>`, and again, pristine, before the tests."""
    network: Text | None = None
    """Network while the agent works and the tests run: none, bridge or a network's name; null takes `sandbox_config.network`."""
    init_network: Text = "bridge"
    """Network of the init commands."""
    timeout_config: TimeoutConfig | None = None
    """Timeouts of this environment; fields left out are those of the run."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """New attempts of a rollout after a retryable failure."""


class LlmConfig(Section):
    """The model and how it is asked."""

    model: Text = DEFAULT_MODEL
    """The endpoint's name for the model, or `scripted:FILE` for the built-in one that plays a file of replies."""
    api_key: SecretStr | None = None
    """A `${NAME}` reference; a literal key works and draws a warning."""
    base_url: str = DEFAULT_BASE_URL
    """Root of an OpenAI-compatible API, up to `/v1`."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Sampling temperature."""
    max_tokens: Annotated[int, Field(gt=0)] = 4096
    """Most tokens of one reply."""
    timeout: Seconds = 60.0
    """Seconds one request may take; retries start anew within the episode's time."""
    enable_caching: bool = True
    """Lets a rollout's own retried request take its earlier answer; never shared between samples."""
    cache_size: Annotated[int, Field(ge=0)] = 100
    """Answers kept for that."""
    max_context_messages: Annotated[int, Field(ge=4)] = 50
    """Most messages sent to the model; older pairs of calls and results are left out first."""
    max_output_length: Annotated[int, Field(ge=100)] = 2000
    """Characters of an observation that the model sees."""
    track_token_usage: bool = True
    """Write the endpoint's token counts into steps and totals."""
    warn_high_usage: bool = True
    """Warn once when a rollout passes 100,000 tokens."""

    @field_validator("base_url")
    @classmethod
    def _usable_base_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, such as http://127.0.0.1:8000/v1")
        if value.rstrip("/").endswith("/chat/completions"):
            raise ValueError("must end before '/chat/completions', which the client adds itself")
        return value

    @property
    def is_scripted(self) -> bool:
        return self.model.startswith(SCRIPTED_PREFIX)


class RolloutConfig(Section):
    """How many rollouts run at once and where they are written."""

    max_parallel_rollouts: Annotated[int, Field(gt=0)] = 4
    """Rollouts in flight, over all environments."""
    trajectory_output_path: Text = "trajectories"
    """The directory in which each run makes one of its own."""
    enable_plugins: bool = True
    """Whether plugins run."""
    save_trajectory_interval: Annotated[int, Field(gt=0)] = 10
    """Steps after which a running episode hands what it has to the store, so that a lost process leaves a row with them."""
    state_persistence_enabled: bool = True
    """Whether those steps are handed over at all."""
    rollouts_per_actor: Annotated[int, Field(gt=0)] | None = None
    """Rollouts after which an actor's process is replaced; null: never, 1: a fresh process each time."""
    max_steps: Annotated[int, Field(gt=0)] = 100
    """Most replies of one episode; then it ends with `action_limit`."""
    max_episode_tokens: Annotated[int, Field(gt=0)] | None = None
    """Most prompt and completion tokens of one episode; then it ends with `token_limit`."""


class EpisodeControlConfig(Section):
    """How many episodes of each environment are played."""

    max_episodes: Annotated[int, Field(gt=0)] = 1
    """Episodes per environment."""
    max_episodes_per_env: Annotated[int, Field(gt=0)] | None = None
    """Overrides `max_episodes`."""
    stop_on_success: bool = False
    """Start no further episode of an environment after its first success."""
    min_success_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """After at least 3 graded episodes, start no further one of an environment whose success rate has reached this."""
    safety_limit: Annotated[int, Field(gt=0)] = 100
    """Absolute bound on the episodes of one environment, attempts included."""

    @property
    def episodes_per_environment(self) -> int:
        return min(self.max_episodes_per_env or self.max_episodes, self.safety_limit)


class SandboxConfig(Section):
    """Limits of every sandbox; secure by default."""

    kind: Literal["docker", "local"] = "docker"
    """`local` is a temporary folder on this machine, without isolation."""
    network: Text = "none"
    """Network while the agent works and the tests run: none, bridge or the name of a network of the engine."""
    memory_mib: Annotated[int, Field(ge=16)] = 2048
    """Memory of a sandbox, swap included."""
    cpus: Annotated[float, Field(gt=0), AfterValidator(_finite)] = 1.0
    """Cores a sandbox may use."""
    pids: Annotated[int, Field(ge=8)] = 512
    """Most processes of a sandbox."""
    shm_mib: Annotated[int, Field(gt=0)] = 64
    """Size of `/dev/shm`."""
    output_limit_kib: Annotated[int, Field(gt=0)] = 64
    """Kept of each stream of a command: head and tail."""
    runtime: Text | None = None
    """Another OCI runtime of the engine, such as runsc or kata."""


class PluginEntry(Section):
    """A module whose concrete plugin classes are loaded."""

    module: Text
    """Dotted name, importable where the run is started."""
    config: dict[str, Any] = {}
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
    """The whole run file."""

    environments: Annotated[list[EnvironmentConfig], Field(min_length=1)]
    rollout_config: RolloutConfig
    template_prompt: Text
    """The system message."""
    episode_control_config: EpisodeControlConfig = EpisodeControlConfig()
    timeout_config: TimeoutConfig = TimeoutConfig()
    llm_config: LlmConfig = LlmConfig()
    sandbox_config: SandboxConfig = SandboxConfig()
    plugins: list[PluginEntry] = []

    @model_validator(mode="before")
    @classmethod
    def _inherit_timeouts(cls, value: Any) -> Any:
        """Give an environment's `timeout_config` the run's fields where it names none of its own."""
        if not isinstance(value, dict):
            return value
        common, environments = value.get("timeout_config"), value.get("environments")
        if not isinstance(common, dict) or not isinstance(environments, list):
            return value
        return value | {"environments": [_with_timeouts(environment, common) for environment in environments]}

    @model_validator(mode="after")
    def _unique_ids(self) -> "RunConfig":
        seen: set[str] = set()
        for environment in self.environments:
            if environment.id in seen:
                raise ValueError(f"environments: the id '{environment.id}' stands there twice; ids must be unique")
            seen.add(environment.id)
        return self

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

    def network(self, environment: EnvironmentConfig) -> str:
        """The network of `environment` while the agent works."""
        return environment.network or self.sandbox_config.network


def _with_timeouts(environment: Any, common: dict[str, Any]) -> Any:
    if not isinstance(environment, dict) or not isinstance(environment.get("timeout_config"), dict):
        return environment
    return environment | {"timeout_config": common | environment["timeout_config"]}
