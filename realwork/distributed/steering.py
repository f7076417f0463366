"""What the driver does with what is asked of a running run."""

from collections.abc import Awaitable, Callable

from realwork.distributed.control import Asked, InFlight, RunStatus, Told
from realwork.distributed.dispatcher import Dispatcher, Started
from realwork.distributed.looking import in_flight
from realwork.errors import NodeError
from realwork.schedule import Placement, Schedule
from realwork.types import RolloutSpec

MAX_NAMED = 5


class Steering:
    """Answers and carries out what is asked.

    `status` fills in what the driver alone knows; `cancel_waiting` writes the row of a rollout that has not begun;
    `note` tells the run's own user what was changed.
    """

    def __init__(
        self,
        run_id: str,
        dispatcher: Dispatcher,
        schedule: Schedule,
        placement: Placement,
        status: Callable[[tuple[InFlight, ...]], RunStatus],
        cancel_waiting: Callable[[RolloutSpec], Awaitable[None]],
        note: Callable[[str], None],
    ) -> None:
        self._run_id = run_id
        self._dispatcher = dispatcher
        self._schedule = schedule
        self._placement = placement
        self._status = status
        self._cancel_waiting = cancel_waiting
        self._note = note

    async def reply(self, asked: Asked) -> Told:
        """The answer to what is asked.

        Raises:
            RealworkError: it cannot be done.
        """
        told = await self._carry_out(asked)
        if asked.verb not in ("status", "look") and told.problem is None:
            self._note(f"realwork ctl: {told.message}")
        return told

    async def _carry_out(self, asked: Asked) -> Told:
        dispatcher = self._dispatcher
        match asked.verb:
            case "status":
                seen = await in_flight(dispatcher, self._placement, asked=asked.number)
                return Told(status=self._status(seen))
            case "pause":
                dispatcher.is_paused = True
                return Told(message=f"paused: {len(dispatcher.in_flight)} in flight go on, nothing more is started")
            case "resume":
                dispatcher.is_paused = False
                dispatcher.wake()
                return Told(message=f"goes on, with at most {dispatcher.limit} rollouts at once")
            case "parallel":
                dispatcher.limit = asked.number
                room = self._placement.room
                fits = "" if asked.number <= room else f", of which {room} fit on the nodes that are there now"
                rollouts = "1 rollout" if asked.number == 1 else f"{asked.number} rollouts"
                return Told(message=f"at most {rollouts} at once{fits}")
            case "cancel":
                return await self._cancel(asked.target)
            case "look":
                return await self._look(asked.target, asked.number)

    async def _cancel(self, target: str) -> Told:
        found = self._called(target)
        if not found and (spec := self._take_waiting(target)) is not None:
            await self._cancel_waiting(spec)
            return Told(message=f"cancelled {spec.trajectory_id}, which had not begun")
        found = found or self._beginning_with(target)
        if len(found) == 1:
            await found[0].slot.cancel()
            return Told(message=f"cancelled {found[0].spec.trajectory_id}, which was in flight")
        return Told(problem=self._which(target, found))

    def _take_waiting(self, target: str) -> RolloutSpec | None:
        """A rollout that waits, taken out of the plan; `target` is its trajectory id, or environment and sample."""
        rest = target.removeprefix(f"{self._run_id}:")
        environment_id, _, sample = rest.rpartition(":")
        if sample.isdecimal() and (spec := self._schedule.cancel(environment_id, int(sample))) is not None:
            return spec
        environment_id, _, before = environment_id.rpartition(":")
        if sample.isdecimal() and before.isdecimal():
            return self._schedule.cancel(environment_id, int(before), attempt=int(sample))
        return None

    async def _look(self, target: str, after: int) -> Told:
        found = self._called(target) or self._beginning_with(target)
        if len(found) != 1:
            return Told(message=self._which(target, found), is_over=True)
        try:
            messages = await found[0].slot.look(after)
        except NodeError:  # its process may be starting
            messages = ()
        return Told(message=found[0].spec.trajectory_id, messages=messages)

    def _called(self, target: str) -> list[Started]:
        """What is in flight under that trajectory id, or environment and sample, with the run's id before it or not."""
        in_flight = self._dispatcher.in_flight
        if target in in_flight:
            return [in_flight[target]]
        rollout_id = target.removeprefix(f"{self._run_id}:")
        return [each for each in in_flight.values() if each.spec.rollout_id == rollout_id]

    def _beginning_with(self, target: str) -> list[Started]:
        """What is in flight whose id begins so; a number at its end is a whole one."""
        end = ":" if target.rpartition(":")[2].isdecimal() else ""
        every = self._dispatcher.in_flight.values()
        ids = [(each, (each.spec.trajectory_id, each.spec.rollout_id)) for each in every]
        return [each for each, names in ids if any(f"{name}:".startswith(target + end) for name in names)]

    def _which(self, target: str, found: list[Started]) -> str:
        if not found:
            return f"no rollout '{target}' is in flight or waits; 'realwork ctl list' names those in flight"
        names = ", ".join(each.spec.trajectory_id for each in found[:MAX_NAMED])
        return (
            f"{len(found)} rollouts in flight begin with {target}: {names}{', ...' if len(found) > MAX_NAMED else ''}"
        )
