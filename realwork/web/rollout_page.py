"""What the page of one attempt shows, made of its row. Pure.

Guarantees: texts that agents wrote stand in `Text` fields, cut and made visible, with the place under which the whole
text is found.
"""

from realwork.analysis.plugins_said import plugins_said, replaced_by
from realwork.analysis.trainable import cautions, obstacles, tests_said
from realwork.dataset.rows import Row, trajectory
from realwork.dataset.samples import segments
from realwork.types import TestResult, Trajectory
from realwork.web import numbers
from realwork.web.conversation import opening, step_view
from realwork.web.places import pretty, text_at
from realwork.web.rollout_views import PluginView, RolloutView, TestView, Text
from realwork.web.text import excerpt
from realwork.web.timeline import spans

_LONGEST_FINDING = 1200


def rollout_view(row: Row) -> RolloutView:
    """The page of the attempt in `row`."""
    record = trajectory(row)
    spec, totals = record.spec, record.totals
    return RolloutView(
        trajectory_id=spec.trajectory_id,
        environment_id=spec.environment_id,
        group_id=spec.group_id,
        sample_index=spec.sample_index,
        group_size=spec.group_size,
        attempt=spec.attempt,
        outcome=_outcome(record),
        status=record.status,
        terminated_reason=record.terminated_reason,
        failure_cause=record.failure_cause,
        error_type=record.error_type,
        error_message=text_at(record.error_message, "error"),
        reward=record.reward,
        rewards=[*record.rewards],
        reward_by=_reward_by(record),
        tests_passed=record.tests_passed,
        tests_total=record.tests_total,
        untrainable=obstacles(record),
        notes=cautions(record),
        facts=_facts(record),
        times=[(name.removesuffix("_s"), seconds) for name, seconds in record.timing.model_dump().items()],
        duration_s=(record.ended_at - record.started_at).total_seconds(),
        spans=[*spans(record)],
        opening=[*opening(record)],
        steps=[step_view(record, step) for step in record.steps],
        tests=[_test(number, test) for number, test in enumerate(record.test_results)],
        diff=text_at(row.get("final_diff"), "diff", "diff"),
        plugins=_plugins(record),
        parent_trajectory_id=record.parent_trajectory_id,
        fork_step=record.fork_step,
        segments=len(segments(record)),
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        cost_usd=totals.cost_usd,
        documents=_documents(record),
    )


def _outcome(record: Trajectory) -> str:
    if not record.graded:
        return "ungraded"
    return "passed" if record.success else "failed"


def _facts(record: Trajectory) -> list[tuple[str, str]]:
    versions = sorted({step.policy_version for step in record.own_steps if step.policy_version})
    facts = {
        "Model": record.model,
        "Policy version": ", ".join(versions),
        "Endpoint": record.base_url_host,
        "Image": record.docker_image,
        "Network": record.network,
        "Node": record.node_id,
        "Seed": str(record.spec.seed),
        "Grading": record.grading_mode or "",
        "Started": f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return [(name, value) for name, value in facts.items() if value]


def _test(number: int, test: TestResult) -> TestView:
    return TestView(
        number=number,
        name=excerpt(test.name, 400).head,
        kind=test.kind,
        command=text_at(test.command, f"test_command.{number}", "bash") or Text(head="", at=""),
        status=test.status,
        duration_s=test.duration_s,
        exit_code=test.exit_code,
        output=text_at(test.output, f"test_output.{number}"),
        error=text_at(test.error, f"test_stderr.{number}"),
    )


def _reward_by(record: Trajectory) -> str:
    """How the reward came about, in a sentence."""
    if record.reward is None:
        return "No reward: the tests gave no grade. A failure of the machinery is never a reward of 0."
    if (by := replaced_by(record)) is not None:
        return f"Set by the plugin {by.name}; the tests' own reward was {numbers.number(by.tests_reward)}."
    return f"{tests_said(record)}."


def _plugins(record: Trajectory) -> list[PluginView]:
    return [
        PluginView(
            name=excerpt(said.name, 80).head,
            lines=[excerpt(line, _LONGEST_FINDING).head for line in said.findings],
            raw=text_at(said.whole, f"plugin.{place}", "json"),
        )
        for place, said in enumerate(plugins_said(record))
    ]


def _documents(record: Trajectory) -> list[tuple[str, Text]]:
    documents = {
        "Environment": ("environment", record.environment),
        "Sampling": ("sampling_params", record.sampling_params),
        "Tools": ("tools", record.tools),
        "Metadata": ("metadata", record.metadata),
    }
    texts = ((name, text_at(pretty(content), at, "json")) for name, (at, content) in documents.items())
    return [(name, text) for name, text in texts if text is not None and text.head not in ("{}", "[]")]
