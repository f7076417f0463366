"""Plugins on Ray: packs them for other processes, and calls the user's as Ray tasks.

Guarantees: a user's code is only ever unpickled and run in the process of a task, which may hang, exit or be killed
without harm; realwork's own plugins run where they are asked, which costs no task.
"""

import asyncio
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, WorkerCrashedError

from realwork.errors import InputError, PluginError, RealworkError, blame
from realwork.plugins.base import BasePlugin
from realwork.plugins.calls import Answer, HookCall, call_plugin, explain
from realwork.plugins.dispatch import PluginHooks
from realwork.plugins.hooks import Hooks, NoHooks
from realwork.plugins.loading import LoadedPlugin
from realwork.plugins.panel import PackedPlugin
from realwork.types import RolloutSpec

CPUS_PER_CALL = 0.25


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
            except RealworkError as error:
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
        code=code,
    )


class RayCalls:
    """Makes the calls of the plugins asked in this process; see `realwork.plugins.panel.CallPlugin`."""

    def __init__(self) -> None:
        self._task: Any = ray.remote(call_packed)
        self._builtins: dict[str, BasePlugin] = {}

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: bytes) -> Answer:
        """What `plugin` answers; a call that is cancelled ends, with its process."""
        if plugin.builtin:
            if plugin.name not in self._builtins:
                self._builtins[plugin.name] = pickle.loads(plugin.code)
            return await call_plugin(self._builtins[plugin.name], call, state)
        retries = 1 if plugin.idempotent else 0
        task = self._task.options(num_cpus=CPUS_PER_CALL, max_retries=retries, name=f"plugin:{plugin.name}")
        called = task.remote(plugin.code, call, state)
        try:
            answer: Answer = await called
        except asyncio.CancelledError:
            ray.cancel(called, force=True)
            raise
        except WorkerCrashedError:
            return Answer(error=f"{call.hook}: its process ended before it answered", lost=True, state=state)
        except RayError as error:
            return Answer(error=f"{call.hook}: the call was lost ({explain(error)})", lost=True, state=state)
        return answer


def call_packed(code: bytes, call: HookCall, state: bytes) -> Answer:
    """What the pickled plugin answers, called in this process."""
    try:
        with blame(PluginError, "it cannot be unpickled"):
            plugin = pickle.loads(code)
    except RealworkError as error:
        return Answer(error=f"{call.hook}: {explain(error)}", state=state)
    return asyncio.run(call_plugin(plugin, call, state))


def rollout_hooks(plugins: Sequence[PackedPlugin], spec: RolloutSpec, calls: RayCalls) -> Hooks:
    """The hooks of the rollout `spec`."""
    return PluginHooks(plugins, spec, calls) if plugins else NoHooks()
