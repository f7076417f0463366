"""The plugins of a run: told when it begins and ends, and asked between the rollouts of an environment how to go on.

Guarantees: without such plugins nothing is called; one that fails decides nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from realwork.config import RunConfig
from realwork.plugins.answers import Strategy
from realwork.plugins.base import PluginHookType
from realwork.plugins.panel import CallPlugin, PackedPlugin, Panel
from realwork.plugins.told import HookCall
from realwork.types import Record, RolloutSummary


class Decision(Record):
    """How an environment goes on: `stopped_by` names who wants no further rollout, null when all agree to go on."""

    stopped_by: str | None = None
    strategy: Strategy = Strategy()


class RunPlugins:
    """The managers and watchers of one run."""

    def __init__(self, plugins: Sequence[PackedPlugin], config: RunConfig, call: CallPlugin) -> None:
        self._panel = Panel(plugins, call)
        self._config = config
        self._results: defaultdict[str, list[RolloutSummary]] = defaultdict(list)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def begin(self) -> None:
        """Tell that the run begins; nothing is waited for."""
        self._panel.tell(HookCall(hook=PluginHookType.PRE_ROLLOUT, config=self._config))

    async def after(self, summary: RolloutSummary) -> Decision:
        """What all managers together decide after the attempt `summary`.

        Raises:
            PluginError: a critical plugin failed.
        """
        environment_id = summary.spec.environment_id
        decision = Decision()
        if self._panel.managers() or self._panel.watching(PluginHookType.POST_ROLLOUT):
            self._results[environment_id].append(summary)
        if not self._panel.managers():
            return decision
        async with self._locks[environment_id]:
            results = tuple(self._results[environment_id])
            call = HookCall(hook=PluginHookType.POST_EPISODE, environment_id=environment_id, results=results)
            for plugin in self._panel.managers():
                answer = await self._panel.ask(plugin, call)
                stopped_by = decision.stopped_by if answer.go_on else decision.stopped_by or plugin.name
                wanted = (answer.strategy or Strategy()).model_dump(exclude_none=True)
                strategy = Strategy(**(wanted | decision.strategy.model_dump(exclude_none=True)))
                decision = Decision(stopped_by=stopped_by, strategy=strategy)
        self._panel.raise_critical()
        return decision

    def data(self) -> dict[str, Any]:
        """What each plugin that was called between rollouts has said, and how its calls went, by its name."""
        return self._panel.data()

    async def end(self) -> dict[str, str]:
        """Tell that the run has ended, wait for all who were told, and answer the first error of each plugin."""
        results = tuple(result for each in self._results.values() for result in each)
        self._panel.tell(HookCall(hook=PluginHookType.POST_ROLLOUT, config=self._config, results=results))
        await self._panel.settle(self._panel.longest_s())
        return self._panel.errors()
