"""Plugins on Ray: packs them for other processes, and calls the user's as Ray tasks.

Guarantees: a user's code is only ever unpickled and run in the process of a task, which may hang, exit or be killed
without harm; realwork's own plugins run where they are asked, which costs no task.
"""

import asyncio
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

from realwork.errors import InputError, PluginError, RealworkError, blame
from realwork.plugins.answers import Answer, State
from realwork.plugins.base import BasePlugin
from realwork.plugins.calls import call_plugin, explain, no_answer, within
from realwork.plugins.dispatch import PluginHooks
from realwork.plugins.hooks import START_S, Hooks, NoHooks
from realwork.plugins.loading import LoadedPlugin
from realwork.plugins.panel import CallPlugin, PackedPlugin
from realwork.plugins.told import HookCall
from realwork.plugins.variables import Variables
from realwork.types import RolloutSpec

WARM_S = 10.0


def pack(loaded: Sequence[LoadedPlugin]) -> tuple[PackedPlugin, ...]:
    """The plugins as bytes that carry the code of the user's modules with them.

    Raises:
        InputError: with one problem for each plugin that cannot be pickled.
    """
    packed: list[PackedPlugin] = []
    problems: list[str] = []
    with _by_value({name for each in loaded for name in each.modules}):
        for each in loaded:
            try:
                with blame(InputError, "cannot be pickled, so no other process can run it"):
                    packed.append(_packed(each))
            except (RealworkError, SystemExit) as error:
                problems.append(f"plugin {each.entry.module}: {each.plugin.name}: {explain(error)}")
    if problems:
        raise InputError(f"{len(problems)} plugin(s) cannot be used", problems=problems)
    return tuple(packed)


@contextmanager
def _by_value(names: set[str]) -> Iterator[None]:
    """Pickles the code of the modules `names`, not their names, for the length of the block."""
    modules = [sys.modules[name] for name in sorted(names)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call]


def _packed(loaded: LoadedPlugin) -> PackedPlugin:
    plugin = loaded.plugin
    code = cloudpickle.dumps(plugin)  # type: ignore[no-untyped-call]
    pickle.loads(code)
    return PackedPlugin(
        name=plugin.name,
        version=str(plugin.version),
        kind=plugin.plugin_type,
        hooks=loaded.hooks,
        priority=loaded.priority,
        timeout_s=loaded.entry.timeout,
        critical=loaded.entry.critical,
        idempotent=bool(plugin.idempotent),
        builtin=loaded.builtin,
        options={name: getattr(loaded.entry, name) for name in ("num_cpus", "num_gpus", "resources")},
        environment_variables=loaded.entry.environment_variables,
        code=code,
    )


class RayCalls:
    """Makes the calls of the plugins asked in this process; see `realwork.plugins.panel.CallPlugin`.

    The time of a call begins with the plugin's code, of which its task tells; that costs as much as a short call, so a
    plugin that answered within the last `WARM_S`, for which there is a process, is called without.
    """

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, bool], Any] = {}
        self._codes: dict[str, Any] = {}
        self._answered_at: dict[str, float] = {}
        self._told: tuple[HookCall, Any] | None = None
        self.losses = Counter[str]()
        self._builtins = _Builtins()

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        """What `plugin` answers; a call that is cancelled, or takes too long, ends with its process."""
        if plugin.builtin:
            return await self._builtins(plugin, call, state, limit_s)
        for _ in range(2 if plugin.idempotent else 1):  # Ray's own retry would start within the plugin's time
            try:
                return await self._called(plugin, call, state, limit_s)
            except WorkerCrashedError:
                continue
        return Answer(error=f"{call.hook}: its process ended before it answered", lost=True)

    async def _called(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        """What one task answers. Raises `WorkerCrashedError` when its process ends before."""
        is_warm = time.monotonic() < self._answered_at.pop(plugin.name, -WARM_S) + WARM_S
        try:
            begun = self._begun(plugin, call, state, is_warm=is_warm)
        except RayError as error:
            return Answer(error=f"{call.hook}: the call could not be made: {_said(error, plugin)}")
        late = Answer(error=f"{call.hook}: its process did not start within {START_S:g} s", lost=True)
        try:
            async with asyncio.timeout(START_S) as clock:
                if not is_warm:
                    await (await anext(begun))
                clock.reschedule(asyncio.get_running_loop().time() + limit_s)
                late = no_answer(call, limit_s)
                answer: Answer = await (begun if is_warm else await anext(begun))
        except WorkerCrashedError:
            raise
        except RayError as error:  # what a task raised may be a CancelledError or a TimeoutError too
            return Answer(error=f"{call.hook}: the call was lost: {_said(error, plugin)}", lost=True)
        except TimeoutError:
            ray.cancel(begun, force=True)
            return late
        except asyncio.CancelledError:
            ray.cancel(begun, force=True)
            raise
        self._answered_at[plugin.name] = time.monotonic()
        return answer

    def _begun(self, plugin: PackedPlugin, call: HookCall, state: State, *, is_warm: bool) -> Any:
        """The answer of a new task, which is to come; before it, if it is not warm, the mark of `begin_packed`."""
        if plugin.name not in self._codes:
            self._codes[plugin.name] = ray.put((plugin.code, plugin.environment_variables))
        key = (plugin.name, is_warm)
        if key not in self._tasks:
            task = ray.remote(call_packed if is_warm else begin_packed)
            returned = {} if is_warm else {"num_returns": "streaming"}
            options = plugin.options | {"max_retries": 0, "name": f"plugin:{plugin.name}"} | returned
            self._tasks[key] = task.options(**options)
        return self._tasks[key].remote(self._codes[plugin.name], self._shared(call), state)

    def _shared(self, call: HookCall) -> Any:
        """`call`, or, where it has a trajectory, the object that all plugins that are told of it get."""
        if self._told is None or self._told[0] is not call:
            self._told = None if call.trajectory is None else (call, ray.put(call))
        return call if self._told is None else self._told[1]


def _said(error: RayError, plugin: PackedPlugin) -> str:
    """What Ray says of a call, or, where its process raised an error, what that says."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return explain(cause, hidden=plugin.environment_variables.values())


class LocalCalls:
    """Makes the calls in this process, each in a thread of its own; a plugin that ends its process ends this one.

    A call that is cancelled goes on where nobody sees it.
    """

    def __init__(self) -> None:
        self._variables = Variables()
        self.losses = Counter[str]()
        self._builtins = _Builtins()

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        """What `plugin` answers."""
        if plugin.builtin:
            return await self._builtins(plugin, call, state, limit_s)
        hidden = list(plugin.environment_variables.values())
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def work() -> None:
            own = call.model_copy(deep=True)  # what the plugin does to it stays with it
            answer = _call_code(plugin.code, own, state, hidden)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(take, answer)

        def take(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        with self._variables.held(plugin.environment_variables):  # a call that is cut does not keep them
            threading.Thread(target=work, daemon=True, name=f"plugin:{plugin.name}").start()
            return await within(limit_s, call, answered)


class _Builtins:
    """Calls realwork's own plugins where they are asked."""

    def __init__(self) -> None:
        self._loaded: dict[str, BasePlugin] = {}

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        if plugin.name not in self._loaded:
            self._loaded[plugin.name] = pickle.loads(plugin.code)
        return await within(limit_s, call, call_plugin(self._loaded[plugin.name], call, state))


def begin_packed(packed: tuple[bytes, dict[str, str]], call: HookCall, state: State) -> Iterator[Answer | None]:
    """A mark, null, once there is a process that goes on with the plugin's code, then what `call_packed` answers."""
    yield None
    yield call_packed(packed, call, state)


def call_packed(packed: tuple[bytes, dict[str, str]], call: HookCall, state: State) -> Answer:
    """What the plugin, pickled and with its environment variables, answers when it is called in this process."""
    code, variables = packed
    with Variables().held(variables):
        return _call_code(code, call, state, list(variables.values()))


def _call_code(code: bytes, call: HookCall, state: State, hidden: Sequence[str]) -> Answer:
    """What the pickled plugin answers; none of `hidden` stands in an error.

    It never raises: what comes out of a plugin's code is its own, an interruption and a cancellation too.
    """
    try:
        with blame(PluginError, "it cannot be unpickled"):
            plugin = pickle.loads(code)
        return asyncio.run(call_plugin(plugin, call, state, hidden=hidden))
    except RealworkError as error:
        return Answer(error=f"{call.hook}: {explain(error, hidden=hidden)}")
    except BaseException as error:  # noqa: BLE001 - the boundary: who waits would take it for an end of his own
        return Answer(error=f"{call.hook}: its code failed ({type(error).__name__})")


def rollout_hooks(plugins: Sequence[PackedPlugin], spec: RolloutSpec, calls: CallPlugin) -> Hooks:
    """The hooks of the rollout `spec`."""
    return PluginHooks(plugins, spec, calls) if plugins else NoHooks()
