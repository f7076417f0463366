"""Everything that realwork raises, and who is to blame for it.

    RealworkError
    ├── InputError              what the user gave is wrong; every problem at once
    │   └── InUse               another process plays the run
    ├── RunAborted              the run cannot go on, whatever is tried next
    ├── StoreError              the output directory cannot be written or read
    │   └── PartMissing         a part that the ledger knows is gone
    ├── FileError               a path in the sandbox has no such file: an answer for the agent
    ├── ArtifactRejected        what the agent left cannot be taken over: its own doing, graded 0
    └── EpisodeError            our machinery failed one rollout; its reward is null
        ├── SandboxError        the engine or the container failed
        │   ├── SandboxLost     the container is gone
        │   │   └── SandboxStuck    it is there, but what ran in it keeps everything else from running
        │   ├── NoSlot          no CPU slot was free in time
        │   ├── ImageError      the image cannot be had or has no shell
        │   └── PrepareError    an init command or a copied folder failed: the environment is at fault
        ├── ModelError          the endpoint refused or failed a completion
        │   ├── ModelRefused    the endpoint will refuse every rollout (key, model, quota)
        │   ├── ModelTimeout    the time given for the reply ended while nothing had failed yet
        │   ├── ReplyWithheld   a content filter or a refusal; asking again gives the same
        │   └── ContextExceeded the messages do not fit into the model's context
        ├── GradingError        the tests could not be run
        ├── PluginError         a critical plugin failed, or one spoilt the environment
        ├── NodeError           the process or node that played the rollout is gone
        └── Cancelled           the run was stopped before the rollout ended

Each takes one positional message and keyword fields with defaults, so that it survives pickling.
A mistake of the agent is never an exception of this tree, except `FileError`, which becomes an observation, and
`ArtifactRejected`, which becomes a reward of 0.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

FailureCause = Literal["sandbox", "model", "grading", "node", "plugin", "cancelled"]


class RealworkError(Exception):
    """The root of the tree."""


class InputError(RealworkError):
    """What the user gave is wrong; its text names every problem in a line of its own.

    Attributes:
        problems: one sentence each, with the place and what to do; never empty.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)

    def __str__(self) -> str:
        message = super().__str__()
        further = self.problems if self.problems != (message,) else ()
        return "\n".join([message, *(f"  - {problem}" for problem in further)])


class InUse(InputError):
    """Another process has the directory of the run."""


class RunAborted(RealworkError):
    """The run cannot go on: every further rollout would fail in the same way."""


class StoreError(RealworkError):
    """The output directory cannot be written or read."""


class PartMissing(StoreError):
    """A part of which the ledger knows is not in the run's directory."""


class FileError(RealworkError):
    """A file operation in the sandbox found no such file, a directory in its place, or no permission."""


class ArtifactRejected(RealworkError):
    """What the agent left behind is hostile or too much to be taken into another sandbox."""


class EpisodeError(RealworkError):
    """Our machinery failed one rollout.

    Attributes:
        cause: the boundary at fault, as it stands in the row.
        retryable: whether a new attempt may succeed.
    """

    cause: ClassVar[FailureCause] = "node"

    @property
    def retryable(self) -> bool:
        return True


class SandboxError(EpisodeError):
    """The engine or the container failed."""

    cause = "sandbox"


class SandboxLost(SandboxError):
    """The container is gone, or no longer answers."""


class SandboxStuck(SandboxLost):
    """The container is there, but what ran in it keeps everything else from running."""


class NoSlot(SandboxError):
    """No CPU slot of the node was free within the time that there was."""


class ImageError(SandboxError):
    """The image cannot be had, or nothing can be run in it."""

    @property
    def retryable(self) -> bool:
        return False


class PrepareError(SandboxError):
    """An init command or a copied folder failed; the message ends with the tail of the output."""

    @property
    def retryable(self) -> bool:
        return False


class ModelError(EpisodeError):
    """The endpoint refused or failed a completion.

    Attributes:
        status: HTTP status of the last answer, `None` if none arrived.
        retry_after_s: seconds that the endpoint asked to wait, `None` if it did not.
    """

    cause = "model"

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        return self.status is None or self.status in (200, 408, 409, 429) or self.status >= 500


class ModelRefused(ModelError):
    """The endpoint will refuse every rollout: a wrong key, an unknown model, no quota."""

    @property
    def retryable(self) -> bool:
        return False


class ModelTimeout(ModelError):
    """The time given for the reply ended before one came, and no request had failed before."""


class ReplyWithheld(ModelError):
    """A content filter or a refusal took the place of the reply."""

    @property
    def retryable(self) -> bool:
        return False


class ContextExceeded(ModelError):
    """The messages do not fit into the model's context."""

    @property
    def retryable(self) -> bool:
        return False


class GradingError(EpisodeError):
    """The tests could not be run."""

    cause = "grading"


class PluginError(EpisodeError):
    """A plugin that is configured as critical failed, or an environment cannot be had as plugins changed it."""

    cause = "plugin"

    @property
    def retryable(self) -> bool:
        return False


class NodeError(EpisodeError):
    """The process or node that played the rollout is gone."""

    cause = "node"


class Cancelled(EpisodeError):
    """The run was stopped before the rollout ended."""

    cause = "cancelled"

    @property
    def retryable(self) -> bool:
        return False


@contextmanager
def blame(kind: type[RealworkError], doing: str) -> Iterator[None]:
    """Attribute a foreign failure inside the block to a boundary, once.

    An error of this tree passes as it is; anything else becomes `kind("doing: what was said")`.
    """
    try:
        yield
    except RealworkError:
        raise
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise kind(f"{doing}: {said}") from error
