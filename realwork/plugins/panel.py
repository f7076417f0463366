"""The plugins of one rollout, or of the run: asks them, within their time, and keeps what became of it.

Guarantees: asking never raises; for one rollout, or one environment between rollouts, a plugin answers one call at a
time and watches one at a time, and its answers do not wait for its watching; one that hung or lost its process
`PATIENCE` times in a row is not asked again, by whatever asks through the same `CallPlugin`.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, Any, Protocol

from pydantic import Field

from realwork.errors import PluginError
from realwork.plugins.answers import Answer, State
from realwork.plugins.base import NATURAL_HOOKS, PluginHookType, PluginType
from realwork.plugins.calls import no_answer
from realwork.plugins.hooks import START_S
from realwork.plugins.told import HookCall
from realwork.types import Record

PATIENCE = 3
MAX_TIMED = 1000
"""So many calls of a plugin are told apart in a row."""


class PackedPlugin(Record):
    """A plugin on its way to other processes.

    Attributes:
        code: the pickled instance.
        options: what Ray reserves for a call, by the names of its own options.
        environment_variables: set while the instance is loaded and called.
        builtin: whether it is one of realwork's own, which may run in the rollout's process.
    """

    name: str
    version: str
    kind: PluginType
    hooks: frozenset[PluginHookType]
    priority: int = 0
    timeout_s: float = 30.0
    critical: bool = False
    idempotent: bool = False
    builtin: bool = False
    options: dict[str, Any] = {}
    environment_variables: Annotated[dict[str, str], Field(repr=False)] = {}
    code: Annotated[bytes, Field(repr=False)] = b""

    def answers(self, hook: PluginHookType) -> bool:
        """Whether its answer to `hook` is used, so that it is waited for."""
        return NATURAL_HOOKS.get(self.kind) is hook


class CallPlugin(Protocol):
    """Makes one call; never raises but for cancellation, which ends the call.

    Attributes:
        losses: how many calls of each plugin were lost since one was not, by its name; whoever asks counts.
    """

    losses: Counter[str]

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        """What `plugin` answers, at most `limit_s` after its code has started, which is at most `START_S` from now."""


class _Desk:
    """Where the calls of one plugin for one rollout, or one environment, take turns, and what it remembers of them."""

    def __init__(self) -> None:
        self.answering = asyncio.Lock()
        self.watching = asyncio.Lock()
        self.state: dict[str, bytes] = {}


class _Seat:
    """What is known of one plugin's calls."""

    def __init__(self) -> None:
        self.desks = defaultdict[str | None, _Desk](_Desk)
        self.said: dict[str, Any] = {}
        self.error: str | None = None
        self.calls = self.errors = self.cut = 0
        self.seconds = self.slowest_s = 0.0
        self.call_s: list[float] = []

    def record(self, answer: Answer, seconds: float) -> None:
        self.calls += 1
        self.seconds += seconds
        self.slowest_s = max(self.slowest_s, seconds)
        if len(self.call_s) < MAX_TIMED:
            self.call_s.append(round(seconds, 6))
        if answer.error is not None:
            self.fail(answer.error)

    def leave_out(self, answer: Answer) -> None:
        """It was not called; said once, and only where no call has failed."""
        if self.error is None and answer.error is not None:
            self.fail(answer.error)

    def fail(self, error: str) -> None:
        self.errors += 1
        self.error = self.error or error

    def data(self) -> dict[str, Any]:
        failed = {"error": self.error, "errors": self.errors} if self.errors else {}
        failed |= {"cut": self.cut} if self.cut else {}
        seconds = {"seconds": round(self.seconds, 6), "slowest_s": round(self.slowest_s, 6)}
        return self.said | failed | {"calls": self.calls} | seconds | {"call_s": self.call_s}


class Panel:
    """`plugins`, highest priority first, asked through `call`."""

    def __init__(self, plugins: Sequence[PackedPlugin], call: CallPlugin) -> None:
        self._plugins = sorted(plugins, key=lambda plugin: -plugin.priority)
        self._seats = {plugin.name: _Seat() for plugin in plugins}
        self._call = call
        self._watching: dict[asyncio.Task[None], tuple[str, PluginHookType]] = {}

    def answering(self, hook: PluginHookType) -> list[PackedPlugin]:
        """The plugins whose answer to `hook` of an episode is used; managers answer between episodes."""
        asked = [plugin for plugin in self._plugins if plugin.kind is not PluginType.ROLLOUT_MANAGER]
        return [plugin for plugin in asked if plugin.answers(hook)]

    def watching(self, hook: PluginHookType) -> list[PackedPlugin]:
        """The plugins that only want to know of `hook`."""
        return [plugin for plugin in self._plugins if hook in plugin.hooks and not plugin.answers(hook)]

    def managers(self) -> list[PackedPlugin]:
        """The plugins that decide between rollouts."""
        return [plugin for plugin in self._plugins if plugin.kind is PluginType.ROLLOUT_MANAGER]

    def longest_s(self) -> float:
        """The longest time that one call may take."""
        return max((plugin.timeout_s for plugin in self._plugins), default=0.0)

    async def ask(self, plugin: PackedPlugin, call: HookCall, *, within_s: float | None = None) -> Answer:
        """What `plugin` answers, within its time and `within_s`; with `error` set when it gave no usable answer."""
        bound_s = START_S + plugin.timeout_s if within_s is None else max(0.0, within_s)
        return await self._ask(plugin, call, bound_s, self._desk(plugin, call).answering)

    def _desk(self, plugin: PackedPlugin, call: HookCall) -> _Desk:
        return self._seats[plugin.name].desks[call.environment_id]

    async def _ask(
        self, plugin: PackedPlugin, call: HookCall, bound_s: float, turn: AbstractAsyncContextManager[None]
    ) -> Answer:
        seat, desk = self._seats[plugin.name], self._desk(plugin, call)
        losses = self._call.losses
        if losses[plugin.name] >= PATIENCE:
            answer = Answer(error=f"not asked any more: it hung or lost its process {PATIENCE} times in a row")
            seat.leave_out(answer)
            return answer
        began = time.monotonic()
        try:
            async with asyncio.timeout(bound_s), turn:
                answer = await self._call(plugin, call, dict(desk.state), min(plugin.timeout_s, bound_s))
        except TimeoutError:
            answer = no_answer(call, bound_s)
        except asyncio.CancelledError:  # whoever asked has ended, which is no fault of the plugin
            seat.cut += 1
            raise
        desk.state |= answer.state
        losses[plugin.name] = losses[plugin.name] + 1 if answer.lost else 0
        seat.record(answer, time.monotonic() - began)
        return answer

    async def ask_all(self, plugins: Sequence[PackedPlugin], call: HookCall) -> list[Answer]:
        """What each of `plugins` answers, asked side by side."""
        return list(await asyncio.gather(*(self.ask(plugin, call) for plugin in plugins)))

    def tell(self, call: HookCall) -> None:
        """Ask those who only watch, without waiting for them."""
        for plugin in self.watching(call.hook):
            task = asyncio.create_task(self._watch(plugin, call))
            self._watching[task] = plugin.name, call.hook
            task.add_done_callback(self._watching.pop)

    async def _watch(self, plugin: PackedPlugin, call: HookCall) -> None:
        """Ask `plugin` when it is done with what it was told before: that waiting is not of the call's own time."""
        async with self._desk(plugin, call).watching:
            await self._ask(plugin, call, START_S + plugin.timeout_s, nullcontext())

    async def settle(self, within_s: float) -> None:
        """Wait for those who were told; the calls that have not ended in time are cut, which is their failure.

        Where one of them has not answered yet, its process may still be starting, which is waited for beside.
        """
        if not self._watching:
            return
        is_starting = any(not self._seats[name].calls for name, _ in self._watching.values())
        within_s += START_S if is_starting else 0.0
        _, late = await asyncio.wait(self._watching, timeout=within_s)
        for name, hook in dict(self._watching[task] for task in late).items():
            self._seats[name].fail(f"{hook}: was not done {within_s:g} s after the end, and cut off")
        self.cut()
        if late:
            await asyncio.wait(late)

    def cut(self) -> None:
        """End the calls that nobody waits for."""
        for task in self._watching:
            task.cancel()

    def say(self, plugin: PackedPlugin, **said: Any) -> None:
        """Add to what stands in the row of `plugin`; each value must be JSON."""
        self._seats[plugin.name].said |= said

    def note(self, plugin: PackedPlugin, key: str, value: Any) -> None:
        """Add `value`, which must be JSON, to the list `key` of what stands in the row of `plugin`."""
        self._seats[plugin.name].said.setdefault(key, []).append(value)

    def fail(self, plugin: PackedPlugin, error: str) -> None:
        """Record a mistake that only shows beside other answers."""
        self._seats[plugin.name].fail(error)

    def errors(self) -> dict[str, str]:
        """The first error of each plugin that had one."""
        return {name: seat.error for name, seat in self._seats.items() if seat.error is not None}

    def raise_critical(self) -> None:
        """Raise when a plugin has failed that is configured as critical.

        Raises:
            PluginError: naming it.
        """
        for plugin in self._plugins:
            error = self._seats[plugin.name].error
            if plugin.critical and error is not None:
                raise PluginError(f"the critical plugin {plugin.name} failed: {error}")

    def data(self) -> dict[str, Any]:
        """What each plugin that was asked has said, and how its calls went, by its name."""
        return {name: seat.data() for name, seat in self._seats.items() if seat.calls or seat.errors or seat.cut}
