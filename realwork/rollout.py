"""One attempt of one rollout: open sandbox and model, play, grade, close.

The one failure boundary: whatever happens becomes a `Trajectory` with a typed cause, and a failure of ours never
becomes a reward. Everything opened is closed before the trajectory is returned, on every way out, cancellation
included.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from realwork.activity import Activity
from realwork.config import EnvironmentConfig, RunConfig
from realwork.environment import Environment, PackedFolder
from realwork.episode import Episode, EpisodeLimits, History, history_of
from realwork.errors import Cancelled, FileError, GradingError, ImageError, PluginError, PrepareError, SandboxError
from realwork.faultpoints import pass_through
from realwork.grading import TRANSFER_S, Grading, grade
from realwork.model.base import Model
from realwork.plugins.hooks import Hooks, longest_hooks_s
from realwork.record import AttemptRecord, RolloutSettings
from realwork.sandbox.base import Sandbox
from realwork.sandbox.cpu_slots import Slots
from realwork.snapshots import Snapshots
from realwork.types import RolloutSpec, Snapshot, TerminatedReason, Trajectory

if TYPE_CHECKING:
    from realwork.sandbox.prepared import Fetch

log = logging.getLogger(__name__)

OVERTIME_S = 30.0
LONGEST_CHANGE = 3.0
"""So many times as long as the run file allows may plugins make an attempt."""
PREPARE_S = 600.0
"""For copying folders in and committing an image, or waiting until somebody else has done so."""
OnSteps = Callable[[Trajectory], Awaitable[None]]
Recall = Callable[[str], Awaitable[Trajectory | None]]


class Backends(Protocol):
    """Opens what a rollout needs."""

    async def prepare(self, spec: RolloutSpec, environment: EnvironmentConfig, fetch: "Fetch | None" = None) -> bool:
        """Do what can be done for all sandboxes of `environment` beforehand: its image is here, and prepared.

        Before it is prepared here, `fetch` may bring it from elsewhere.
        Whether nothing is left that could fail in each of them: an init command that runs there.

        Raises:
            ImageError: the image cannot be had.
            PrepareError: an init command or a copied folder failed.
        """

    def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AbstractAsyncContextManager[Sandbox]:
        """A sandbox of its own for `spec` in which `environment` stands ready; as many as are opened.

        When `spec` is resumed, it has the files of that snapshot.

        Raises:
            SandboxError: as `prepare`, which is not needed before; or there is no sandbox.
        """

    def open_model(self, spec: RolloutSpec) -> AbstractAsyncContextManager[Model]:
        """A conversation of its own for `spec`."""

    def slots(self) -> Slots:
        """The CPU slots of this node, for one rollout."""

    async def has_snapshot(self, snapshot_id: str) -> bool:
        """Whether a sandbox can be opened here with the files of that snapshot."""

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """Remove what snapshots of the rollout there are here, whichever attempt took them; it never raises."""


def preparation_s(config: RunConfig, environment: EnvironmentConfig) -> float:
    """Seconds after which the image of `environment` is prepared or cannot be."""
    return config.timeouts(environment).global_timeout * len(environment.init_commands) + PREPARE_S


def longest_s(config: RunConfig, environment: EnvironmentConfig) -> float:
    """Seconds after which an attempt has ended, whatever happened; its sandbox ends itself then."""
    timeouts = config.timeouts(environment)
    init_s = timeouts.global_timeout * len(environment.init_commands)
    episode_s = timeouts.global_timeout + config.patience_s(environment)
    tests_s = timeouts.test_timeout * (len(environment.unit_tests) + 2) + config.patience_s(environment)
    return 2 * init_s + episode_s + tests_s + longest_hooks_s(config) + TRANSFER_S + 4 * OVERTIME_S


def bound_s(config: RunConfig, environment: EnvironmentConfig) -> float:
    """Seconds after which an attempt has ended, whatever plugins make of its environment."""
    return LONGEST_CHANGE * longest_s(config, environment) + PREPARE_S + OVERTIME_S


def _refusal(config: RunConfig, before: EnvironmentConfig, changed: EnvironmentConfig) -> str | None:
    """Why a rollout of `before` cannot be played as `changed`, null if it can."""
    most_mib = max(config.limits(each).memory_mib for each in config.environments)
    if config.limits(changed).memory_mib > most_mib:
        return f"the environment was not changed: memory_mib must be at most {most_mib}, which a rollout reserves"
    longest = LONGEST_CHANGE * longest_s(config, before)
    if longest_s(config, changed) > longest:
        return f"the environment was not changed: its times allow an attempt of more than {longest:.0f} s"
    return None


async def run_rollout(
    spec: RolloutSpec,
    settings: RolloutSettings,
    backends: Backends,
    hooks: Hooks,
    *,
    queue_s: float = 0.0,
    image_s: float = 0.0,
    activity: Activity | None = None,
    on_begin: Callable[[AttemptRecord], None] | None = None,
    on_steps: OnSteps | None = None,
    recall: Recall | None = None,
) -> Trajectory:
    """Play `spec` and grade it; whatever fails stands in the trajectory, nothing is raised.

    Args:
        queue_s: seconds that the rollout waited before it was started, for the row.
        image_s: seconds that its image has taken already, for the row.
        activity: is told what the rollout is doing.
        on_begin: is given the record, which can be looked at while it is made.
        on_steps: called with the unfinished record every `save_trajectory_interval` steps and after each snapshot;
            without it no snapshot is taken, as nobody could go on from one.
        recall: gives the trajectory of an earlier attempt, null if it cannot be had; without it, or when the snapshot
            is not here, an attempt that was to be resumed begins at the beginning.
    """
    record = AttemptRecord(spec, settings, queue_s=queue_s, image_s=image_s)
    if on_begin is not None:
        on_begin(record)
    with _recorded(record):
        await _Attempt(spec, settings, backends, hooks, record, activity or Activity(), on_steps, recall).run()
    with _recorded(record):
        if not record.is_cancelled:
            return await hooks.evaluate(record.trajectory())
    hooks.close()
    return hooks.annotate(record.trajectory())


@contextmanager
def _recorded(record: AttemptRecord) -> Iterator[None]:
    """Whatever fails in the block ends there and stands in `record`."""
    try:
        yield
    except asyncio.CancelledError:
        record.fail(Cancelled("the run was stopped before the rollout ended"))
    except Exception as error:  # noqa: BLE001 - the boundary: a defect of ours must not lose the row
        record.fail(error)


class _Attempt:
    """The way of one attempt through its phases."""

    def __init__(
        self,
        spec: RolloutSpec,
        settings: RolloutSettings,
        backends: Backends,
        hooks: Hooks,
        record: AttemptRecord,
        activity: Activity,
        on_steps: OnSteps | None,
        recall: Recall | None,
    ) -> None:
        self._spec = spec
        self._config = settings.config
        self._folders: tuple[PackedFolder, ...] = settings.folders.get(spec.environment_id, ())
        self._test_folders: tuple[PackedFolder, ...] = settings.test_folders.get(spec.environment_id, ())
        self._backends = backends
        self._hooks = hooks
        self._record = record
        self._activity = activity
        self._on_steps = on_steps
        self._recall = recall
        self._history: History | None = None
        self._slots = record.slots = backends.slots()

    async def run(self) -> None:
        """Open, play, grade, close.

        What plugins changed is the environment of this rollout alone: if it cannot be prepared, that is their failure.

        Raises:
            EpisodeError: our machinery failed.
        """
        before = self._record.environment
        refuse = partial(_refusal, self._config, before)
        environment = self._record.environment = await self._hooks.modify(before, refuse)
        try:
            await self._run(environment)
        except (ImageError, PrepareError) as error:
            if environment == before or (
                isinstance(error, ImageError) and environment.docker_image == before.docker_image
            ):
                raise
            raise PluginError(f"the environment as {', '.join(self._hooks.modified_by)} changed it: {error}") from error

    async def _run(self, environment: EnvironmentConfig) -> None:
        self._activity.begin("preparing")
        with self._timed("image_s"):
            await self._backends.prepare(self._spec, environment)
            await self._take_up()
        self._activity.begin("booting")
        began = time.monotonic()
        pass_through("create")
        async with self._backends.open_sandbox(self._spec, environment) as sandbox:
            pass_through("start")
            parent = self._record.parent
            digest = parent.image_digest if parent else sandbox.image_digest
            self._record.place |= {"image_digest": digest, "node_id": sandbox.node_name}
            self._record.not_enforced = sandbox.not_enforced
            await self._remember(environment, sandbox)
            self._record.seconds["boot_s"] = time.monotonic() - began
            async with self._backends.open_model(self._spec) as model:
                self._record.model = model
                async with self._snapshots(sandbox) as snapshots:
                    reason = await self._play(environment, sandbox, model, snapshots)
            pass_through("grade")
            self._activity.begin("grading")
            await self._grade(environment, sandbox)
        self._record.end(reason)

    async def _take_up(self) -> None:
        """Get what the attempt is to go on from; without it, forget that it was to."""
        resumed = self._spec.resumed
        if resumed is None:
            return
        parent = None
        if self._recall is not None and await self._backends.has_snapshot(resumed.snapshot_id):
            parent = await self._recall(resumed.parent_trajectory_id)
        if parent is None or len(parent.steps) < resumed.fork_step:
            self._spec = self._spec.model_copy(update={"resumed": None})
            return
        self._record.parent = parent
        self._history = history_of(parent, resumed.fork_step)

    @contextmanager
    def _timed(self, field: str) -> Iterator[None]:
        """Add the seconds of the block to `field`, without those that it waited for CPU slots."""
        began, waited_before_s = time.monotonic(), self._slots.waited_s
        try:
            yield
        finally:
            seconds = time.monotonic() - began - (self._slots.waited_s - waited_before_s)
            self._record.seconds[field] = self._record.seconds.get(field, 0.0) + seconds

    def _snapshots(self, sandbox: Sandbox) -> Snapshots:
        rollout = self._config.rollout_config
        return Snapshots(
            sandbox,
            interval=rollout.snapshot_interval,
            is_wanted=rollout.state_persistence_enabled and self._on_steps is not None,
            keep=rollout.keep_snapshots,
            begun=len(self._history.steps) if self._history else 0,
            on_snapshot=self._note_snapshot,
        )

    def _ready(self, environment: EnvironmentConfig, sandbox: Sandbox) -> Environment:
        limit_bytes = self._config.limits(environment).output_limit_bytes
        return Environment(
            sandbox,
            environment,
            self._config.timeouts(environment),
            output_limit_bytes=limit_bytes,
            earlier_calls=sum(len(step.observations) for step in self._history.steps) if self._history else 0,
            slots=self._slots,
        )

    async def _play(
        self, environment: EnvironmentConfig, sandbox: Sandbox, model: Model, snapshots: Snapshots
    ) -> TerminatedReason:
        config = self._config
        limits = EpisodeLimits(
            duration_s=config.timeouts(environment).global_timeout,
            patience_s=config.patience_s(environment),
            max_steps=config.rollout_config.max_steps,
            max_tokens=config.rollout_config.max_episode_tokens,
            max_context_messages=config.llm_config.max_context_messages,
            max_context_tokens=config.llm_config.max_context_tokens,
            max_output_length=config.llm_config.max_output_length,
            tracks_usage=config.llm_config.track_token_usage,
        )
        episode = self._record.episode = Episode(
            model,
            self._ready(environment, sandbox),
            self._hooks,
            limits,
            system=config.template_prompt,
            prompt=environment.prompt,
            history=self._history,
            activity=self._activity,
            after_step=partial(self._after_step, snapshots),
            before_actions=snapshots.settled,
        )
        if self._history is not None:
            await self._hand_over()
        try:
            with self._timed("agent_s"):
                async with asyncio.timeout(limits.duration_s + limits.patience_s + OVERTIME_S):
                    return await episode.play()
        except TimeoutError as error:
            raise SandboxError(f"the episode did not end {OVERTIME_S:g} s after its time was over") from error

    async def _after_step(self, snapshots: Snapshots) -> None:
        """Every few steps, begin a snapshot and give what there is to whoever keeps it."""
        rollout = self._config.rollout_config
        steps = self._record.episode.steps if self._record.episode else []
        snapshots.after_step(steps)
        if rollout.state_persistence_enabled and len(steps) % rollout.save_trajectory_interval == 0:
            await self._hand_over()

    async def _note_snapshot(self, index: int, snapshot: Snapshot) -> None:
        if self._record.episode is not None:
            self._record.episode.note_snapshot(index, snapshot)
            await self._hand_over()

    async def _hand_over(self) -> None:
        if self._on_steps is not None:
            await self._on_steps(self._record.trajectory())

    async def _remember(self, environment: EnvironmentConfig, sandbox: Sandbox) -> None:
        """Let the sandbox remember what the agent is given, which is not what a snapshot has."""
        since = self._record.place["image_digest"] if self._record.parent else None
        if since is None and self._record.parent is not None:
            return
        try:
            await sandbox.remember(environment.working_directory, since=since)
        except (SandboxError, FileError) as error:
            log.info("%s: what the agent changes will not be told: %s", self._spec.trajectory_id, error)

    async def _note_diff(self, sandbox: Sandbox) -> None:
        try:
            self._record.final_diff = await sandbox.diff()
        except (SandboxError, FileError) as error:
            log.info("%s: what the agent changed is not told: %s", self._spec.trajectory_id, error)

    async def _grade(self, environment: EnvironmentConfig, sandbox: Sandbox) -> None:
        grading = Grading(
            environment=environment,
            config=self._config.grading(environment),
            folders=self._folders,
            test_folders=self._test_folders,
            test_timeout_s=self._config.timeouts(environment).test_timeout,
            preparation_s=self._config.timeouts(environment).global_timeout * len(environment.init_commands),
            limit_bytes=self._config.limits(environment).output_limit_bytes,
            slots=self._slots,
            patience_s=self._config.patience_s(environment),
        )
        self._hooks.testing()
        try:
            with self._timed("grade_s"):
                async with asyncio.timeout(grading.longest_s):
                    anew = self._spec.model_copy(update={"resumed": None})
                    fresh = partial(self._backends.open_sandbox, anew, environment)
                    found = await grade(sandbox, grading, fresh, on_left=partial(self._note_diff, sandbox))
                    uncounted = {} if self._spec.resumed is None else {"changed_outside": None}  # changes since then
                    self._record.grade = found.model_copy(update=uncounted)
        except TimeoutError as error:
            raise GradingError("the tests did not end in their time") from error
