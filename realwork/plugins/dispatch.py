"""The hooks of one rollout, answered by its plugins; knows nothing of where they run.

Guarantees: a plugin that fails changes nothing and is recorded; only a critical one raises. What only watches is never
waited for before the episode has ended.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from realwork.config import EnvironmentConfig
from realwork.plugins.base import PluginHookType
from realwork.plugins.hooks import LONGEST_CHAIN, START_S, Refuse, Verdict
from realwork.plugins.panel import CallPlugin, PackedPlugin, Panel
from realwork.plugins.told import HookCall
from realwork.text import shorten
from realwork.types import Action, InvalidAction, NamedReward, Observation, RolloutSpec, Trajectory

LONGEST_SHOWN = 2000


class PluginHooks:
    """The `Hooks` of the rollout `spec`; see there."""

    def __init__(self, plugins: Sequence[PackedPlugin], spec: RolloutSpec, call: CallPlugin) -> None:
        self._panel = Panel(plugins, call)
        self._spec = spec
        self._replies = 0
        self.modified_by: Sequence[str] = ()

    async def modify(self, environment: EnvironmentConfig, refuse: Refuse) -> EnvironmentConfig:
        """The environment that the rollout runs with, after each modifier in turn."""
        self._tell(PluginHookType.PRE_EPISODE, environment=environment)
        end = time.monotonic() + START_S + LONGEST_CHAIN * self._panel.longest_s()
        for plugin in self._panel.answering(PluginHookType.PRE_EPISODE):
            call = HookCall(hook=PluginHookType.PRE_EPISODE, spec=self._spec, environment=environment)
            answer = await self._panel.ask(plugin, call, within_s=end - time.monotonic())
            if answer.environment is None or answer.environment == environment:
                continue
            if problem := refuse(answer.environment):
                self._panel.fail(plugin, problem)
                continue
            self._panel.say(plugin, changed=_changes(environment, answer.environment))
            environment = answer.environment
            self.modified_by = (*self.modified_by, plugin.name)
        self._panel.raise_critical()
        return environment

    async def review(self, actions: Sequence[Action]) -> list[Verdict]:
        """One verdict for each of `actions`; each filter sees what those before it have left."""
        reply, self._replies = self._replies, self._replies + 1
        verdicts = [Verdict(action=action) for action in actions]
        if not verdicts:
            return verdicts
        self._tell(PluginHookType.PRE_ACTION, actions=tuple(actions))
        open_positions = list(range(len(verdicts)))
        for plugin in self._panel.answering(PluginHookType.PRE_ACTION):
            seen = tuple(verdicts[position].action for position in open_positions)
            call = HookCall(hook=PluginHookType.PRE_ACTION, spec=self._spec, actions=seen)
            answer = await self._panel.ask(plugin, call)
            left = []
            for position, filtered in zip(open_positions, answer.filtered or (), strict=False):
                before = verdicts[position]
                if filtered.action is None:
                    verdicts[position] = _blocked(plugin.name, filtered.reason)
                    continue
                left.append(position)
                if filtered.action != before.action:
                    verdicts[position] = _rewritten(plugin.name, before, filtered.action)
                    self._note_rewrite(plugin, reply, before.action, filtered.action)
            open_positions = open_positions if answer.filtered is None else left
        self._panel.raise_critical()
        return verdicts

    def _note_rewrite(self, plugin: PackedPlugin, reply: int, before: Action, after: Action) -> None:
        self._panel.note(plugin, "rewritten", {"step": reply, "from": _shown(before), "to": _shown(after)})

    def acted(self, action: Action, observation: Observation) -> None:
        """An action was carried out."""
        self._tell(PluginHookType.POST_ACTION, action=action, result=observation)

    def testing(self) -> None:
        """The tests begin."""
        self._tell(PluginHookType.PRE_TEST)

    def _tell(self, hook: PluginHookType, **told: Any) -> None:
        if self._panel.watching(hook):
            self._panel.tell(HookCall(hook=hook, spec=self._spec, **told))

    async def evaluate(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory` with what evaluators, if it is graded, and analyzers add to it."""
        if trajectory.status == "cancelled":
            self.close()
            return self.annotate(trajectory)
        await self.settle()
        if trajectory.graded:
            trajectory = await self._judge(trajectory)
        call = HookCall(hook=PluginHookType.POST_EPISODE, spec=self._spec, trajectory=trajectory)
        self._panel.tell(call)
        analyzers = self._panel.answering(call.hook)
        for plugin, answer in zip(analyzers, await self._panel.ask_all(analyzers, call), strict=True):
            if answer.data is not None:
                self._panel.say(plugin, **json.loads(answer.data))
        await self.settle()
        self._panel.raise_critical()
        return self.annotate(trajectory)

    async def settle(self) -> None:
        """Wait, as long as one call may take, for those who were told of something; what has not ended then is cut."""
        await self._panel.settle(self._panel.longest_s())

    def close(self) -> None:
        """End the calls of those who were told of something."""
        self._panel.cut()

    async def _judge(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory` with the evaluators' rewards; the first of them that names `reward` replaces the tests'.

        Whatever fails, a reward has the same name in every row: names are plain for the first evaluator alone.
        """
        call = HookCall(hook=PluginHookType.POST_TEST, spec=self._spec, trajectory=trajectory)
        self._panel.tell(call)
        evaluators = self._panel.answering(call.hook)
        rewards, reward, replaced_by = list(trajectory.rewards), trajectory.reward, ""
        for plugin, answer in zip(evaluators, await self._panel.ask_all(evaluators, call), strict=True):
            for name, value in answer.rewards or ():
                is_plain = plugin is evaluators[0] and name not in ("tests", "reward")
                own = name if is_plain else f"{plugin.name}.{name}"
                rewards.append(NamedReward(name=own, value=value))
                if name == "reward" and replaced_by:
                    self._panel.fail(plugin, f"its reward was not used: {replaced_by} had replaced it before")
                elif name == "reward":
                    reward, replaced_by = value, plugin.name
                    self._panel.say(plugin, replaced_reward=trajectory.reward)
        self._panel.raise_critical()
        return trajectory.model_copy(update={"rewards": tuple(rewards), "reward": reward})

    def annotate(self, trajectory: Trajectory) -> Trajectory:
        """`trajectory` with what the plugins have said so far."""
        return trajectory.model_copy(update={"plugin_data": json.dumps(self._panel.data())})


def _blocked(name: str, reason: str) -> Verdict:
    said = f"blocked by {name}: {reason}"
    return Verdict(action=InvalidAction(problem=said), decision=said)


def _shown(action: Action) -> dict[str, Any]:
    """The fields of `action`, long texts shortened."""
    fields = action.model_dump()
    return {name: shorten(value, LONGEST_SHOWN) if isinstance(value, str) else value for name, value in fields.items()}


def _rewritten(name: str, before: Verdict, action: Action) -> Verdict:
    by = f"{before.decision}, {name}" if before.decision.startswith("rewritten by") else f"rewritten by {name}"
    return Verdict(action=action, decision=by)


def _changes(before: EnvironmentConfig, after: EnvironmentConfig) -> dict[str, Any]:
    """The fields that differ, as they are now; of environment variables their names only, for values may be secret."""
    was, now = before.model_dump(), after.model_dump()
    changed = {name: value for name, value in now.items() if was[name] != value}
    if "environment_variables" in changed:
        earlier, later = was["environment_variables"], now["environment_variables"]
        names = sorted(earlier.keys() | later.keys())
        changed["environment_variables"] = [name for name in names if earlier.get(name) != later.get(name)]
    return changed
