"""Asks and steers a running run from elsewhere: the central actor, which has a name, takes what is asked to the driver.

Guarantees: nothing is kept that the driver does not know; a run that is gone, or whose driver does not answer, is said
to be so within `ANSWER_S`.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import ray
from ray.exceptions import ActorDiedError, RayError

from realwork.distributed.answers import answer
from realwork.errors import InputError, NodeError, RealworkError
from realwork.schedule import EnvironmentProgress, Place
from realwork.types import Doing, Message, Record

log = logging.getLogger(__name__)
NAMESPACE = "realwork"
ANSWER_S = 20.0
AGAIN_AFTER_S = 1.0


class Asked(Record):
    """What is asked of a run; `target` is a trajectory id or its beginning.

    Attributes:
        number: rollouts in flight (parallel), messages known already (look), or how many of the rollouts that take
            longest are asked what they are doing (status).
    """

    verb: Literal["status", "look", "cancel", "pause", "resume", "parallel"]
    target: str = ""
    number: int = 0


class InFlight(Record):
    """A rollout in flight, since `seconds`; what it is doing is null where that was not asked, or not answered."""

    trajectory_id: str
    environment_id: str
    node: str
    seconds: float
    doing: Doing | None = None


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
        self._waiting: asyncio.Queue[tuple[str, Asked]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[Told]] = {}

    async def ask(self, asked: Asked) -> Told:
        """What the driver answers."""
        name = uuid.uuid4().hex
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._answers[name] = future
        try:
            async with asyncio.timeout(ANSWER_S):
                self._waiting.put_nowait((name, asked))
                return await future
        except TimeoutError:
            return Told(problem=f"the run's driver gave no answer for {ANSWER_S:g} s")
        finally:
            del self._answers[name]

    async def next(self) -> tuple[str, Asked]:
        """What is asked next, as soon as something is, under a name of its own; nothing that nobody waits for."""
        while True:
            name, asked = await self._waiting.get()
            if name in self._answers:
                return name, asked

    def reply(self, name: str, told: Told) -> None:
        """The driver's answer to what was asked under that name."""
        if (future := self._answers.get(name)) is not None and not future.done():
            future.set_result(told)


def name_of(run_id: str) -> str:
    """The name of a run's central actor."""
    return f"run:{run_id}"


async def serve(central: Any, reply: Callable[[Asked], Awaitable[Told]]) -> None:
    """Answer what is asked through the central actor with `reply`, until cancelled."""
    async with asyncio.TaskGroup() as replies:
        while True:
            try:
                name, asked = await answer(central.next_asked.remote())
            except (RayError, NodeError) as error:  # it may be restarting
                if isinstance(error, ActorDiedError):
                    log.warning("The run can no longer be steered from elsewhere: %s", error)
                    return
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                replies.create_task(_reply(central, name, asked, reply))


async def _reply(central: Any, name: str, asked: Asked, reply: Callable[[Asked], Awaitable[Told]]) -> None:
    try:
        told = await reply(asked)
    except (RealworkError, RayError, TimeoutError) as error:
        told = Told(problem=str(error) or "it took too long")
    central.reply.remote(name, told)


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
