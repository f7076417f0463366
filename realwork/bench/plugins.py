"""What plugins add to a step of an episode, beside a bare call of a Ray task in the same run.

The plugins do nothing, so that what is measured is the way to them and back. Steps without any, with watching and with
filtering ones take turns, so that a busy machine slows all alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from realwork.bench.spread import Spread, spread
from realwork.config import PluginEntry
from realwork.distributed.cluster import connected
from realwork.distributed.hooks import RayCalls, pack, rollout_hooks
from realwork.distributed.yardstick import bare_task
from realwork.plugins.base import ActionFilterPlugin, BasePlugin, PluginContext, PluginHookType
from realwork.plugins.loading import LoadedPlugin
from realwork.types import Action, CommandAction, Observation, Record, RolloutSpec

COUNTS = (0, 1, 5)
ROUNDS = 5
SPEC = RolloutSpec(run_id="bench", environment_id="bench", sample_index=0)
ACTION = CommandAction(command="ls")
RESULT = Observation(call_id="c", tool_name="execute_command", status="ok", output="", exit_code=0)


class Watching(BasePlugin):
    """Is told of every action."""

    version = "1"
    supported_hooks = [PluginHookType.POST_ACTION]

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name


class Filtering(ActionFilterPlugin):
    """Lets every action pass."""

    version = "1"
    supported_hooks = [PluginHookType.PRE_ACTION]

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def filter_actions(self, actions: list[Action], context: PluginContext) -> list[Action]:
        return actions


class PluginsBench(Record):
    """What was measured in several rounds, in milliseconds.

    Attributes:
        watching_ms, filtering_ms: what a step takes on the way of the episode, by how many plugins there are.
        settling_ms: what the end of an episode waits, a step, for what watching plugins are still at.
        bare_call_ms: one call of a Ray task that does nothing.
    """

    watching_ms: dict[int, Spread]
    settling_ms: dict[int, Spread]
    filtering_ms: dict[int, Spread]
    bare_call_ms: Spread


def bench_plugins(*, steps: int, address: str | None = None) -> PluginsBench:
    """Take `steps` steps with so many plugins of each kind, in every round.

    Raises:
        InputError: there is no Ray.
    """
    with connected(address):
        return asyncio.run(_measure(steps))


async def _measure(steps: int) -> PluginsBench:
    watching = {count: [Watching(f"watching {number}") for number in range(count)] for count in COUNTS}
    filtering = {count: [Filtering(f"filtering {number}") for number in range(count)] for count in COUNTS}
    took: dict[str, list[float]] = {}
    bare = bare_task()
    for _ in range(ROUNDS + 1):  # the first starts the processes
        took.setdefault("bare", []).append(await _timed(bare, steps))
        for count in COUNTS:
            on_the_way, settling = await _steps(watching[count], steps)
            took.setdefault(f"watching {count}", []).append(on_the_way)
            took.setdefault(f"settling {count}", []).append(settling)
            on_the_way, _ = await _steps(filtering[count], steps)
            took.setdefault(f"filtering {count}", []).append(on_the_way)
    ms = {name: spread([1000 * seconds for seconds in values[1:]]) for name, values in took.items()}
    return PluginsBench(
        watching_ms={count: ms[f"watching {count}"] for count in COUNTS},
        settling_ms={count: ms[f"settling {count}"] for count in COUNTS},
        filtering_ms={count: ms[f"filtering {count}"] for count in COUNTS},
        bare_call_ms=ms["bare"],
    )


async def _timed(call: Callable[[], Awaitable[object]], count: int) -> float:
    began = time.monotonic()
    for _ in range(count):
        await call()
    return (time.monotonic() - began) / count


async def _steps(plugins: Sequence[BasePlugin], count: int) -> tuple[float, float]:
    """Seconds of a step with `plugins`, and what each has left to be waited for at the end."""
    hooks = rollout_hooks(pack([LoadedPlugin(each, PluginEntry(module="bench")) for each in plugins]), SPEC, RayCalls())

    async def step() -> None:
        await hooks.review([ACTION])
        hooks.acted(ACTION, RESULT)

    on_the_way = await _timed(step, count)
    began = time.monotonic()
    await hooks.settle()
    return on_the_way, (time.monotonic() - began) / count
