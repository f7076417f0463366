"""What an environment is, and how it is graded."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from realwork.fields import (
    LONGEST_S,
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
from realwork.limits import Network, SandboxLimits


class TimeoutConfig(Section):
    """Seconds until something is cut off."""

    global_timeout: Seconds = 1800.0
    """Seconds an episode may take, from the opened sandbox to the last action, and each init command before it;
    grading has its own time."""
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
    """The image of its sandbox; it needs a `/bin/sh`, and `find` for tests in a fresh sandbox."""
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
    network: Network | None = None
    """Network while the agent works and the tests run; null takes `network` of the sandbox_config."""
    init_network: Network = "bridge"
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
