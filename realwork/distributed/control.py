"""Asks and steers a running run from elsewhere: the central actor, which has a name, takes what is asked to the driver.

Guarantees: nothing is kept that the driver does not know; a run that is gone, or whose driver does not answer, is said
to be so within `ANSWER_S`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from realwork.distributed.answers import answer
from realwork.errors import InputError, NodeError, RealworkError
from realwork.schedule import EnvironmentProgress, Place
from realwork.types import Message, Record

log = logging.getLogger(__name__)
NAMESPACE = "realwork"
ANSWER_S = 20.0


class Asked(Record):
    """What is asked of a run; `target` is a trajectory id or its beginning.

    Attributes:
        number: rollouts in flight (parallel), or messages known already (look).
    """

    verb: Literal["status", "look", "cancel", "pause", "resume", "parallel"]
    target: str = ""
    number: int = 0


class InFlight(Record):
    """A rollout in flight, since `seconds`."""

    trajectory_id: str
    node: str
    seconds: float


class RunStatus(Record):
    """How a run stands.

    Attributes:
        limit: rollouts in flight at once.
        failures: rollouts without a grade that get no new attempt, by cause.
    """

    run_id: str
    directory: str
    elapsed_s: float
    limit: int
    is_paused: bool
    environments: tuple[EnvironmentProgress, ...]
    failures: dict[str, int]
    in_flight: tuple[InFlight, ...]
    nodes: tuple[Place, ...]


class Told(Record):
    """What a run answers.

    Attributes:
        problem: why it cannot be done, null if it was.
        messages: of the conversation that was asked for.
        is_over: whether that rollout is no longer in flight.
    """

    message: str = ""
    problem: str | None = None
    status: RunStatus | None = None
    messages: tuple[Message, ...] = ()
    is_over: bool = False


class Mailbox:
    """Holds what is asked of a run until its driver takes it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[int, Asked]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Told]] = {}
        self._count = 0

    async def ask(self, asked: Asked) -> Told:
        """What the driver answers."""
        number, self._count = self._count, self._count + 1
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            async with asyncio.timeout(ANSWER_S):
                self._waiting.put_nowait((number, asked))
                return await future
        except TimeoutError:
            return Told(problem=f"the run's driver gave no answer for {ANSWER_S:g} s")
        finally:
            del self._answers[number]

    async def next(self) -> tuple[int, Asked]:
        """What is asked next, as soon as something is."""
        return await self._waiting.get()

    def reply(self, number: int, told: Told) -> None:
        """The driver's answer to what was asked under that number."""
        if (future := self._answers.get(number)) is not None and not future.done():
            future.set_result(told)


def name_of(run_id: str) -> str:
    """The name of a run's central actor."""
    return f"run:{run_id}"


async def serve(central: Any, reply: Callable[[Asked], Awaitable[Told]]) -> None:
    """Answer what is asked through the central actor with `reply`, until cancelled."""
    async with asyncio.TaskGroup() as replies:
        while True:
            try:
                number, asked = await answer(central.next_asked.remote())
            except (RayError, NodeError) as error:
                log.warning("The run can no longer be steered from elsewhere: %s", error)
                return
            replies.create_task(_reply(central, number, asked, reply))


async def _reply(central: Any, number: int, asked: Asked, reply: Callable[[Asked], Awaitable[Told]]) -> None:
    try:
        told = await reply(asked)
    except RealworkError as error:
        told = Told(problem=str(error))
    central.reply.remote(number, told)


def running() -> list[str]:
    """The runs that go on in the cluster that this process is connected to."""
    prefix = name_of("")
    found = ray.util.list_named_actors(all_namespaces=True)
    names = (each["name"] for each in found if each["namespace"] == NAMESPACE)
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def ask(run_id: str, asked: Asked) -> Told:
    """What the run answers; blocks.

    Raises:
        InputError: there is no such run, or it cannot do what is asked.
        NodeError: it does not answer.
    """
    try:
        central = ray.get_actor(name_of(run_id), namespace=NAMESPACE)
        call: ray.ObjectRef[Told] = central.ask.remote(asked)
        told = ray.get(call, timeout=ANSWER_S + 10)
    except ValueError as error:
        raise InputError(f"no run {run_id} goes on in this cluster") from error
    except RayError as error:
        raise NodeError(f"run {run_id} does not answer: it has ended, or its node is gone") from error
    if told.problem is not None:
        raise InputError(told.problem)
    return told
