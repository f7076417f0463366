"""The plugins of a run: told when it begins and ends, and asked between the rollouts of an environment how to go on.

Guarantees: without such plugins nothing is called; one that fails decides nothing. Memory and the cost of a call do not
grow with the number of rollouts; one environment does not wait for another.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from realwork.config import RunConfig
from realwork.plugins.answers import Answer, Strategy
from realwork.plugins.base import PluginHookType
from realwork.plugins.panel import CallPlugin, PackedPlugin, Panel
from realwork.plugins.told import HookCall, RolloutStats
from realwork.types import Record, RolloutSummary

KEPT_OF_ENVIRONMENT = 100
KEPT_OF_RUN = 1000
"""So many of the last attempts plugins are told of."""


class Decision(Record):
    """How an environment goes on: `stopped_by` names who wants no further rollout, null when all agree to go on."""

    stopped_by: str | None = None
    strategy: Strategy = Strategy()


class _Tally:
    """Totals of attempts, and the last of them."""

    def __init__(self, kept: int) -> None:
        self._last: deque[RolloutSummary] = deque(maxlen=kept)
        self._attempts = self._graded = self._successful = self._failed = 0
        self._reward = 0.0

    @property
    def graded(self) -> int:
        return self._graded

    def add(self, summary: RolloutSummary) -> None:
        self._last.append(summary)
        self._attempts += 1
        self._graded += summary.success is not None
        self._successful += summary.success is True
        self._failed += summary.status == "failed"
        self._reward += summary.reward or 0.0

    def call(self, **told: Any) -> HookCall:
        """What is told of it, beside `told`."""
        stats = RolloutStats(
            attempts=self._attempts,
            graded=self._graded,
            successful=self._successful,
            failed=self._failed,
            mean_reward=self._reward / self._graded if self._graded else None,
        )
        return HookCall(results=tuple(self._last), stats=stats, **told)


class RunPlugins:
    """The managers and watchers of one run, which may be one that is taken up."""

    def __init__(self, plugins: Sequence[PackedPlugin], config: RunConfig, call: CallPlugin) -> None:
        self._panel = Panel(plugins, call)
        self._config = config
        self._all = _Tally(KEPT_OF_RUN)
        self._tallies = defaultdict[str, _Tally](lambda: _Tally(KEPT_OF_ENVIRONMENT))
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._stopped = defaultdict[str, dict[str, int]](dict)
        self._strategies = defaultdict[str, dict[str, dict[str, Any]]](dict)

    def take_up(self, summary: RolloutSummary) -> None:
        """Count an attempt of an earlier start of the run; before `begin`."""
        self._count(summary)

    def _count(self, summary: RolloutSummary) -> None:
        if self._panel.watching(PluginHookType.POST_ROLLOUT):
            self._all.add(summary)
        if self._panel.managers():
            self._tallies[summary.spec.environment_id].add(summary)

    def begin(self) -> None:
        """Tell that the run begins; nothing is waited for."""
        self._panel.tell(HookCall(hook=PluginHookType.PRE_ROLLOUT, config=self._config))

    async def after(self, summary: RolloutSummary) -> Decision:
        """What all managers together decide after the attempt `summary`. Raises as `decide` does."""
        self._count(summary)
        return await self.decide(summary.spec.environment_id)

    async def decide(self, environment_id: str) -> Decision:
        """What all managers together decide of the environment as it stands, one decision of it at a time.

        Raises:
            PluginError: a critical plugin failed.
        """
        decision = Decision()
        if not self._panel.managers():
            return decision
        async with self._locks[environment_id]:
            tally = self._tallies[environment_id]
            call = tally.call(hook=PluginHookType.POST_EPISODE, environment_id=environment_id)
            for plugin in self._panel.managers():
                answer = await self._panel.ask(plugin, call)
                self._note(plugin.name, environment_id, answer, tally.graded)
                stopped_by = decision.stopped_by if answer.go_on else decision.stopped_by or plugin.name
                wanted = (answer.strategy or Strategy()).model_dump(exclude_none=True)
                strategy = Strategy(**(wanted | decision.strategy.model_dump(exclude_none=True)))
                decision = Decision(stopped_by=stopped_by, strategy=strategy)
        self._panel.raise_critical()
        return decision

    def _note(self, name: str, environment_id: str, answer: Answer, graded: int) -> None:
        """Keep what the manager `name` decided, for the record of the run."""
        if not answer.go_on:
            self._stopped[name].setdefault(environment_id, graded)
        if answer.strategy is not None and (wanted := answer.strategy.model_dump(exclude_none=True)):
            self._strategies[name][environment_id] = wanted

    def data(self) -> dict[str, Any]:
        """What each plugin that was called between rollouts has said and decided, and how its calls went, by its name.

        `stopped` are environments, each with how many of its episodes were graded then.
        """
        data: dict[str, Any] = self._panel.data()
        for name, stopped in self._stopped.items():
            data[name]["stopped"] = stopped
        for name, strategies in self._strategies.items():
            data[name]["strategy"] = strategies
        return data

    async def end(self) -> dict[str, str]:
        """Tell that the run has ended, wait for all who were told, and answer the first error of each plugin."""
        self._panel.tell(self._all.call(hook=PluginHookType.POST_ROLLOUT, config=self._config))
        await self._panel.settle(self._panel.longest_s())
        return self._panel.errors()
