"""The whole run file."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from realwork.config.environments import EnvironmentConfig, GradingConfig, TimeoutConfig
from realwork.config.llm import LlmConfig
from realwork.fields import Amount, Count, Line, Seconds, Section, Text
from realwork.limits import SandboxLimits

DUPLICATE_IDS = "duplicate_ids"
OBJECT_STORAGE = ("s3://", "gs://")


def is_url(location: str) -> bool:
    """Whether `location` names object storage, and no directory."""
    return location.startswith(OBJECT_STORAGE)


def split_url(url: str) -> tuple[str, str]:
    """The URL of the folder in which `url` stands, options included, and the last name of `url`."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    return parts._replace(path=folder).geturl(), name


class RolloutConfig(Section):
    """How many rollouts run at once and where they are written."""

    max_parallel_rollouts: Count = 4
    """Rollouts in flight, over all environments."""
    trajectory_output_path: Line = "trajectories"
    """The directory in which each run makes one of its own; `s3://` or `gs://` for object storage."""
    enable_plugins: bool = True
    """Whether plugins run."""
    save_trajectory_interval: Count = 10
    """Steps after which a running episode hands what it has to the store; if its process is lost, its row has them."""
    state_persistence_enabled: bool = True
    """Whether a running episode is kept: its steps are handed over and snapshots of its container are taken."""
    snapshot_interval: Count | None = None
    """Steps after which the files of a running episode's container are kept as an image of its engine. Null: as soon as
    a minute of its time would be lost without."""
    keep_snapshots: bool = False
    """Whether snapshots stay on the engine; else an episode keeps its newest one, until its rollout has its row."""
    rollouts_per_actor: Count | None = None
    """Rollouts after which an actor's process is replaced; null: never, 1: a fresh process each time."""
    store_shards: Count | None = None
    """Processes that write trajectories; null: as many as the rollouts in flight need, one up to 2,000 of them."""
    cpu_slots: Count | None = None
    """Commands and test commands that run at the same moment on a node, over all runs of this user there. What waits
    for its turn loses nothing of its timeout, and puts off the end of its episode, at most to double its time. Null: no
    bound."""
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
    group_size: Count | None = None
    """Episodes of one group; those of an environment have to be a multiple of it. Null: all of them are one group."""
    max_open_groups: Count | None = None
    """Groups, over all environments, that are begun and not finished at the same time; null: no bound."""

    @field_validator("group_size")
    @classmethod
    def _divides(cls, value: int | None, info: ValidationInfo) -> int | None:
        own = "max_episodes_per_env" if info.data.get("max_episodes_per_env") else "max_episodes"
        bounds = {name: info.data.get(name, 0) for name in (own, "safety_limit")}  # 0 for what is wrong itself
        set_by = min(bounds, key=lambda name: bounds[name])
        if value is not None and (episodes := bounds[set_by]) % value:
            raise ValueError(
                f"{episodes} episodes of an environment cannot be divided into groups of {value}: let {set_by} be a "
                "multiple of group_size"
            )
        return value

    @property
    def episodes_per_environment(self) -> int:
        return min(self.max_episodes_per_env or self.max_episodes, self.safety_limit)

    @property
    def episodes_per_group(self) -> int:
        return self.group_size or self.episodes_per_environment

    def group_index(self, sample_index: int) -> int | None:
        """The group of an environment's episode; null where all are one group."""
        return None if self.group_size is None else sample_index // self.group_size


class SandboxConfig(SandboxLimits):
    """The kind of every sandbox, and the limits of those whose environment names none."""

    kind: Literal["docker", "local", "memory"] = "docker"
    """`local`, a temporary folder on this machine without isolation, is taken from `--sandbox local` alone; `memory`
    runs nothing, and is for `realwork bench`."""


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
    num_cpus: Amount = 0.25
    """CPUs that Ray reserves for a call; 0 for one that only waits for others, such as a judge."""
    num_gpus: Amount = 0.0
    """GPUs likewise."""
    resources: dict[Line, Amount] = {}
    """Other resources of Ray likewise; `{"node:10.0.0.5": 0.001}` binds the calls to that node."""
    environment_variables: Annotated[dict[str, str], Field(repr=False)] = {}
    """Set while its code is loaded and called."""
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

    def patience_s(self, environment: EnvironmentConfig) -> float:
        """Seconds that an episode of `environment` may wait for CPU slots beyond its time, and its tests as many."""
        return self.timeouts(environment).global_timeout if self.rollout_config.cpu_slots else 0.0

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
