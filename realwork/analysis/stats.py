"""What the rollouts of a run came to, in numbers.

A rollout counts once, with its graded attempt if it has one, else with its last; what was spent counts every attempt.
An ungraded rollout has no reward and is in no mean of rewards. Memory grows by a few hundred bytes a rollout.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from realwork.analysis.attempts import Attempt, Results, attempts
from realwork.analysis.details import Details, details, run_plugins
from realwork.analysis.planned import Planned
from realwork.analysis.plugin_use import PluginStats
from realwork.types import Record, Timing


class Stats(Record):
    """The numbers of an environment, or of all together; null where there is nothing to take a mean of.

    Attributes:
        planned: rollouts that the run file asks for; null where there is no run file.
        missing: planned rollouts without a row, for whatever reason.
        unnecessary: those of them that episode control or a plugin made so; the others were not played yet.
        failed: rollouts that were never graded.
        success_rate: successful rollouts over graded ones.
        mean_reward, reward_std: mean and standard deviation over graded rollouts.
        groups_alike: groups of graded rollouts, two or more, that all have the same reward: they teach a group-relative
            trainer nothing.
        pass_at_k: by k (1, 2, 4, ...), the chance that one of k graded rollouts is successful, estimated without bias;
            of all together: the mean over the environments, for each k that all of them have rollouts for.
        mean_duration_s, median_duration_s, p95_duration_s, mean_steps, mean_tool_calls: over rollouts, graded or not.
        tool_calls_per_success: tool calls of all rollouts over successful rollouts.
        action_efficiency: tool calls that did what they were to do over all tool calls, of all attempts.
        tool_calls: of all attempts by status.
        decisions: tool calls that plugins looked at, by what they decided.
        plugins: calls of plugins by their name; of all environments together: those between rollouts, too.
        prompt_tokens, completion_tokens, cost_usd, timing: sums over all attempts.
        cached_tokens: prompt tokens from the endpoint's cache, as far as it told.
        failures: rollouts never graded, by cause.
        attempt_failures: attempts that failed, by cause, the ones that a later attempt made good included.
        terminated_reasons: rollouts by the reason for which they ended.
    """

    planned: int | None
    missing: int | None
    unnecessary: int | None
    rollouts: int
    attempts: int
    graded: int
    successful: int
    failed: int
    success_rate: float | None
    mean_reward: float | None
    reward_std: float | None
    groups_alike: int
    pass_at_k: dict[int, float]
    mean_duration_s: float | None
    median_duration_s: float | None
    p95_duration_s: float | None
    mean_steps: float | None
    mean_tool_calls: float | None
    tool_calls_per_success: float | None
    action_efficiency: float | None
    tool_calls: dict[str, int]
    decisions: dict[str, int]
    plugins: dict[str, PluginStats]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    cost_usd: float | None
    failures: dict[str, int]
    attempt_failures: dict[str, int]
    terminated_reasons: dict[str, int]
    timing: Timing


class RunStats(Record):
    """The numbers of a run, or of several; environments in the order of their ids."""

    total: Stats
    environments: dict[str, Stats]


def stats(directory: Path) -> RunStats:
    """The numbers of the run in `directory`, or of all runs in a `trajectory_output_path`.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    results = Results()
    spent: defaultdict[str, _Spent] = defaultdict(_Spent)
    for attempt, timing in attempts(directory):
        results.add(attempt)
        spent[attempt.rollout.environment_id].add(attempt, timing)
    found, planned, managed = details(directory), Planned(directory), run_plugins(directory)
    stopped = {name for use in managed.values() for name in use.stats().stopped}
    nothing: dict[str, list[Attempt]] = {name: [] for name in planned.rollouts}
    by_environment = nothing | results.by_environment()
    unnecessary = {name: planned.unnecessary(name, rollouts, stopped) for name, rollouts in by_environment.items()}
    environments = {
        name: _stats(
            rollouts,
            spent[name],
            found.get(name, Details()),
            _Missing(planned.rollouts.get(name), len(rollouts), unnecessary[name]),
            _pass_at_k(rollouts),
        )
        for name, rollouts in sorted(by_environment.items())
    }
    everything = [rollout for rollouts in by_environment.values() for rollout in rollouts]
    curve = _mean_curve([numbers.pass_at_k for numbers in environments.values() if numbers.graded])
    whole = Details()
    for each in found.values():
        whole.add(each)
    for name, use in managed.items():
        whole.plugins[name].merge(use)
    wanted = planned.rollouts.total() if planned.rollouts else None
    missing = _Missing(wanted, len(everything), sum(unnecessary.values()))
    total = _stats(everything, _Spent.sum(spent.values()), whole, missing, curve)
    return RunStats(total=total, environments=environments)


def pass_at_k(graded: int, successful: int, k: int) -> float:
    """The chance that at least one of `k` rollouts drawn from `graded` without putting back is successful.

    Raises:
        ValueError: `k` is not in 1..`graded`.
    """
    if not 1 <= k <= graded:
        raise ValueError(f"pass@{k} of {graded} rollouts is not defined")
    return 1.0 - math.comb(graded - successful, k) / math.comb(graded, k)


class _Missing(NamedTuple):
    """Rollouts that are planned, null where that is not known, those that have a row, and those that need none."""

    planned: int | None
    played: int
    unneeded: int

    @property
    def missing(self) -> int | None:
        return None if self.planned is None else max(0, self.planned - self.played)

    @property
    def unnecessary(self) -> int | None:
        return None if self.planned is None else self.unneeded


class _Spent:
    """Sums over attempts."""

    def __init__(self) -> None:
        self.attempts = self.prompt_tokens = self.completion_tokens = 0
        self.cost_usd: float | None = None
        self.failures: Counter[str] = Counter()
        self.seconds = dict.fromkeys(Timing.model_fields, 0.0)

    def add(self, attempt: Attempt, timing: Timing) -> None:
        self.attempts += 1
        self.prompt_tokens += attempt.prompt_tokens
        self.completion_tokens += attempt.completion_tokens
        self._add_cost(attempt.cost_usd)
        if attempt.failure_cause is not None:
            self.failures[attempt.failure_cause] += 1
        for name in self.seconds:
            self.seconds[name] += getattr(timing, name)

    def _add_cost(self, cost_usd: float | None) -> None:
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd

    @classmethod
    def sum(cls, parts: Iterable["_Spent"]) -> "_Spent":
        whole = cls()
        for part in parts:
            whole.attempts += part.attempts
            whole.prompt_tokens += part.prompt_tokens
            whole.completion_tokens += part.completion_tokens
            whole._add_cost(part.cost_usd)
            whole.failures += part.failures
            whole.seconds = {name: whole.seconds[name] + part.seconds[name] for name in whole.seconds}
        return whole


def _stats(
    rollouts: Sequence[Attempt], spent: _Spent, inside: Details, missing: _Missing, curve: dict[int, float]
) -> Stats:
    graded = [rollout for rollout in rollouts if rollout.graded]
    successful = sum(rollout.success is True for rollout in graded)
    calls = inside.calls.total()
    return Stats(
        planned=missing.planned,
        missing=missing.missing,
        unnecessary=missing.unnecessary,
        rollouts=len(rollouts),
        attempts=spent.attempts,
        graded=len(graded),
        successful=successful,
        failed=len(rollouts) - len(graded),
        success_rate=successful / len(graded) if graded else None,
        mean_reward=mean(rollout.reward for rollout in graded),
        reward_std=_std([rollout.reward for rollout in graded if rollout.reward is not None]),
        groups_alike=_groups_alike(graded),
        pass_at_k=curve,
        mean_duration_s=mean(rollout.duration_s for rollout in rollouts),
        median_duration_s=_quantile([rollout.duration_s for rollout in rollouts], 0.5),
        p95_duration_s=_quantile([rollout.duration_s for rollout in rollouts], 0.95),
        mean_steps=mean(rollout.n_steps for rollout in rollouts),
        mean_tool_calls=mean(rollout.n_tool_calls for rollout in rollouts),
        tool_calls_per_success=sum(rollout.n_tool_calls for rollout in rollouts) / successful if successful else None,
        action_efficiency=inside.calls["ok"] / calls if calls else None,
        tool_calls=_counts(inside.calls),
        decisions=_counts(inside.decisions),
        plugins={name: use.stats() for name, use in sorted(inside.plugins.items())},
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        cached_tokens=inside.cached_tokens,
        cost_usd=spent.cost_usd,
        failures=_counts(rollout.failure_cause or "unknown" for rollout in rollouts if not rollout.graded),
        attempt_failures=_counts(spent.failures.elements()),
        terminated_reasons=_counts(rollout.terminated_reason for rollout in rollouts),
        timing=Timing(**spent.seconds),
    )


def _pass_at_k(rollouts: Sequence[Attempt]) -> dict[int, float]:
    graded = sum(rollout.graded for rollout in rollouts)
    successful = sum(rollout.success is True for rollout in rollouts)
    return {1 << power: pass_at_k(graded, successful, 1 << power) for power in range(graded.bit_length())}


def _mean_curve(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    shortest = min(curves, key=len, default={})
    return {k: sum(curve[k] for curve in curves) / len(curves) for k in shortest}


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there, null if none is."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def _std(values: Sequence[float]) -> float | None:
    """The standard deviation of the values themselves, null if there are none."""
    middle = mean(values)
    return None if middle is None else math.sqrt(math.fsum((each - middle) ** 2 for each in values) / len(values))


def _quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed, null if there are none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else None


def _groups_alike(graded: Iterable[Attempt]) -> int:
    groups: defaultdict[str, list[float | None]] = defaultdict(list)
    for rollout in graded:
        groups[rollout.group_id].append(rollout.reward)
    return sum(len(rewards) > 1 and len(set(rewards)) == 1 for rewards in groups.values())


def _counts(names: Iterable[str] | Counter[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    counted = Counter(names)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
