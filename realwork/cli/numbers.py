"""`stats`: the dataset in numbers."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from realwork.cli.console import number, results, seconds, table
from realwork.cli.inspection import Directory
from realwork.cli.plugin_notes import manager_notes

if TYPE_CHECKING:
    from realwork.analysis.plugin_use import PluginStats
    from realwork.analysis.stats import Stats

SHOWN_ENVIRONMENTS = 50
SHOWN_NAMES = 8
_PHASES = {
    "queue": "queue_s",
    "image": "image_s",
    "boot": "boot_s",
    "model": "llm_s",
    "environment": "env_s",
    "grading": "grade_s",
    "CPU slots": "slot_s",
    "store": "store_s",
}


def stats(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Success rate, rewards, pass@k, durations, tokens, cost, tool calls, plugins, and failures by cause."""
    from realwork.analysis.stats import stats as compute_stats

    numbers = compute_stats(directory)
    if as_json:
        typer.echo(numbers.model_dump_json(indent=2))
        return
    rows = table(
        "", "Rollouts", "Graded", "Successful", "Rate", "Reward", "pass@k", "Steps", "Seconds", "Tokens", "USD"
    )
    shown = [*numbers.environments.items()][:SHOWN_ENVIRONMENTS]
    for name, each in [*shown, ("all", numbers.total)]:
        rows.add_row(Text(name), *_columns(each))
    results.print(rows)
    if left := len(numbers.environments) - len(shown):
        results.print(f"{left} more environments; --json has them all", markup=False)
    for line in _lines(numbers.total):
        results.print(line, markup=False)


def _columns(of: "Stats") -> list[str]:
    spread = f" ±{of.reward_std:.2f}" if of.reward_std else ""
    return [
        str(of.rollouts),
        str(of.graded),
        str(of.successful),
        number(of.success_rate, ".0%"),
        f"{number(of.mean_reward)}{spread}",
        " ".join(f"{k}:{value:.2f}" for k, value in of.pass_at_k.items()) or "-",
        number(of.mean_steps, ".1f"),
        number(of.mean_duration_s, ".1f"),
        str(of.prompt_tokens + of.completion_tokens),
        number(of.cost_usd, ".4f"),
    ]


def _lines(total: "Stats") -> list[str]:
    """What is said below the table."""
    spent = {name: getattr(total.timing, field) for name, field in _PHASES.items()}
    whole = sum(spent.values())
    waiting = (total.missing or 0) - (total.unnecessary or 0)
    share = {name: f"{seconds(value)} ({value / whole:.0%})" for name, value in spent.items() if value}
    found = {
        "Not played yet": str(waiting) if waiting else "",
        "Made unnecessary by episode control or a plugin": str(total.unnecessary) if total.unnecessary else "",
        "Without a grade": _counts(total.failures),
        "Failed attempts": _counts(total.attempt_failures),
        "Ended by": _counts(total.terminated_reasons),
        "Groups in which all rewards are alike": str(total.groups_alike) if total.groups_alike else "",
        "Tool calls": _calls(total),
        "Decisions of plugins": _counts(total.decisions),
        "Duration": _duration(total),
        "Prompt tokens from the endpoint's cache": _cached(total),
        "Where the time went": ", ".join(f"{name} {said}" for name, said in share.items()),
    }
    found |= {f"Plugin {name}": _plugin(use) for name, use in total.plugins.items()}
    return [f"{name}: {said}" for name, said in found.items() if said]


def _calls(of: "Stats") -> str:
    if of.action_efficiency is None:
        return ""
    each = f", {of.tool_calls_per_success:.1f} for each success" if of.tool_calls_per_success is not None else ""
    return f"{_counts(of.tool_calls)}; {of.action_efficiency:.0%} did what they were to do{each}"


def _duration(of: "Stats") -> str:
    if of.median_duration_s is None:
        return ""
    return f"median {seconds(of.median_duration_s)}, 95% within {number(of.p95_duration_s, '.1f')} s"


def _cached(of: "Stats") -> str:
    if of.cached_tokens is None or not of.prompt_tokens:
        return ""
    return f"{of.cached_tokens} of {of.prompt_tokens} ({of.cached_tokens / of.prompt_tokens:.0%})"


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{count} {name}" for name, count in [*counts.items()][:SHOWN_NAMES]]
    return ", ".join(shown) + (f" and {len(counts) - SHOWN_NAMES} more" if len(counts) > SHOWN_NAMES else "")


def _plugin(use: "PluginStats") -> str:
    said = [f"{use.calls} calls"]
    said += [f"{use.errors} failed"] if use.errors else []
    said += [f"mean {use.mean_s * 1000:.1f} ms"] if use.mean_s is not None else []
    said += [f"95% within {use.p95_s * 1000:.1f} ms"] if use.p95_s is not None else []
    said += [f"the reward of {use.replaced_rewards} is its own"] if use.replaced_rewards else []
    return ", ".join([*said, *manager_notes(use)])
