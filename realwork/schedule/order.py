"""Which rollout is next, over all environments of a run.

Pure: no clock, no Ray, no disk. Guarantees: a rollout has at most one attempt in flight and at most `max_retries` + 1
of them in all; a rollout that has been graded is never played again, nor one whose container was lost twice in a row at
the same step, or whose tests could twice in a row not be run; an environment that is not prepared yet has one rollout
in flight, so that what fails it fails once; at most `max_open_groups` groups are open. What each call costs does not
grow with the number of rollouts, and hardly with that of environments.
"""

import zlib
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from realwork.config import RunConfig
from realwork.schedule.environment_plan import EnvironmentPlan, EnvironmentProgress, NextStep
from realwork.types import RolloutSpec, RolloutSummary


class Schedule:
    """The rollouts of a run: open groups first, else environment by environment, so that groups are finished."""

    def __init__(self, config: RunConfig, run_id: str) -> None:
        """Plan every rollout of `config`."""
        self._run_id = run_id
        control = config.episode_control_config
        self._most_groups = control.max_open_groups
        self._plans = [EnvironmentPlan(environment, control) for environment in config.environments]
        self._places = {plan.environment_id: place for place, plan in enumerate(self._plans)}
        self._counted = [(0, 0)] * len(self._plans)
        self._left = self._open_groups = 0
        self._going_on, self._opening = _Queue(), _Queue()
        for place in range(len(self._plans)):
            self._file(place)

    def take_up(self, attempts: Iterable[RolloutSummary]) -> None:
        """Leave out what is graded among `attempts`, all that earlier starts have played; nothing is in flight yet."""
        for summary in attempts:
            if (place := self._places.get(summary.spec.environment_id)) is not None:
                self._plans[place].take_up(summary)
        for place, plan in enumerate(self._plans):
            plan.begin()
            self._file(place)

    def next(self) -> RolloutSpec | None:
        """The next rollout to start, null when none can be started now."""
        place = self._going_on.first(self._is("goes on"))
        if place is None and (self._most_groups is None or self._open_groups < self._most_groups):
            place = self._opening.first(self._is("opens a group"))
        if place is None:
            return None
        plan = self._plans[place]
        sample, attempt = plan.take()
        self._file(place)
        return self._spec(plan, sample, attempt)

    def _spec(self, plan: EnvironmentPlan, sample: int, attempt: int) -> RolloutSpec:
        return RolloutSpec(
            run_id=self._run_id,
            environment_id=plan.environment_id,
            sample_index=sample,
            attempt=attempt,
            seed=zlib.crc32(f"{plan.environment_id}:{sample}".encode()) & 0x7FFFFFFF,
            group_index=plan.control.group_index(sample),
            group_size=plan.control.episodes_per_group,
            resumed=plan.resumptions.get(sample) if attempt else None,
        )

    def _is(self, step: NextStep) -> Callable[[int], bool]:
        return lambda place: self._plans[place].next_step == step

    def _file(self, place: int) -> None:
        """Sort a plan in anew after something of it has changed."""
        plan = self._plans[place]
        left, groups = self._counted[place]
        self._counted[place] = (plan.left, len(plan.open_groups))
        self._left += plan.left - left
        self._open_groups += len(plan.open_groups) - groups
        match plan.next_step:
            case "goes on":
                self._going_on.add(place)
            case "opens a group":
                self._opening.add(place)

    def record(self, summary: RolloutSummary) -> None:
        """Take note of the end of an attempt that `next` gave out."""
        place = self._places[summary.spec.environment_id]
        self._plans[place].record(summary)
        self._file(place)

    def cancel(self, environment_id: str, sample: int, *, attempt: int | None = None) -> RolloutSpec | None:
        """Take a rollout that waits out of the plan, as failed; the attempt that it waited for, null if it does not.

        With `attempt`, only if it waits for that one.
        """
        place = self._places.get(environment_id)
        waited_for = self._plans[place].cancel_waiting(sample, attempt) if place is not None else None
        if place is None or waited_for is None:
            return None
        self._file(place)
        return self._spec(self._plans[place], sample, waited_for)

    def is_prepared(self, environment_id: str) -> bool:
        """Whether the environment is prepared somewhere, or has nothing to prepare."""
        return self._plans[self._places[environment_id]].is_prepared

    def prepared(self, environment_id: str) -> None:
        """Take note that the environment is prepared: its rollouts may start side by side."""
        place = self._places[environment_id]
        self._plans[place].is_prepared = True
        self._file(place)

    def stop_environment(self, environment_id: str) -> None:
        """Start no further rollout of the environment; those that wait are skipped."""
        place = self._places[environment_id]
        self._plans[place].is_stopped = True
        self._plans[place].skip_waiting()
        self._file(place)

    def begin_no_more(self) -> None:
        """Begin no environment of which nothing has been played yet."""
        for place, plan in enumerate(self._plans):
            plan.withhold()
            self._file(place)

    def set_max_retries(self, environment_id: str, max_retries: int) -> None:
        """Let failed rollouts of the environment have so many new attempts from now on."""
        self._plans[self._places[environment_id]].max_retries = max_retries

    @property
    def states(self) -> dict[str, int]:
        """Rollouts in each state, of which every rollout has one."""
        plans = self._plans
        return {
            "waiting": sum(len(plan.waiting) for plan in plans),
            "in_flight": sum(plan.in_flight for plan in plans),
            "successful": sum(plan.successful for plan in plans),
            "unsuccessful": sum(plan.graded - plan.successful for plan in plans),
            "failed": sum(plan.failed for plan in plans),
            "unnecessary": sum(plan.skipped for plan in plans),
            "withheld": sum(plan.withheld for plan in plans),
        }

    @property
    def left(self) -> int:
        """Rollouts that wait or are in flight."""
        return self._left

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._left

    def progress_of(self, environment_id: str) -> EnvironmentProgress:
        """Where one environment stands."""
        return self._plans[self._places[environment_id]].progress()

    def progress(self) -> list[EnvironmentProgress]:
        """Where each environment stands, in the order of the run file."""
        return [plan.progress() for plan in self._plans]


class _Queue:
    """Places of plans, the lowest first; whether one still belongs here is found out when it is its turn."""

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._members: set[int] = set()

    def add(self, place: int) -> None:
        if place not in self._members:
            self._members.add(place)
            heappush(self._heap, place)

    def first(self, belongs: Callable[[int], bool]) -> int | None:
        while self._heap:
            if belongs(self._heap[0]):
                return self._heap[0]
            self._members.discard(heappop(self._heap))
        return None
