"""Runs to look at: large ones, of few distinct conversations, written as the store writes its parts."""

import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from realwork.dataset.encoding import table
from realwork.dataset.parts import FOLDER, part_name, write
from realwork.dataset.schema import SCHEMA
from realwork.types import (
    FunctionCall,
    Message,
    NamedReward,
    Observation,
    RolloutSpec,
    Step,
    StepTokens,
    TestResult,
    Timing,
    ToolCall,
    Trajectory,
    Usage,
)

BEGAN = datetime(2026, 3, 4, 9, 0, tzinfo=UTC)
KINDS = ("passed", "failed", "sandbox", "model")
_COMMANDS = (
    ("ls -la src tests", "total 24\ndrwxr-xr-x 2 root root 4096 src\ndrwxr-xr-x 2 root root 4096 tests\n", 0),
    ("sed -n 1,80p src/parser.py", "def parse(text):\n    return text.split(',')\n" * 12, 0),
    ("python -m pytest -q tests", "....F..\n1 failed, 6 passed in 0.42s\n", 1),
    ("grep -rn 'def split' src | head", "src/parser.py:14:def split(line):\n", 0),
)
_TASK = "The parser in src/parser.py splits quoted fields at commas. Make it keep them together. The tests say how."
_PATCH = """import csv
import io


def parse(text):
    \"\"\"The fields of a line, quoted ones whole.\"\"\"
    return next(csv.reader(io.StringIO(text)))
"""


def conversation(kind, *, steps, run="big", tokens=False):
    """A trajectory of so many steps that ended in this way."""
    messages = [
        Message(role="system", content="You are a software engineer who works in a Linux container through tools."),
        Message(role="user", content=_TASK),
    ]
    taken = []
    began = BEGAN + timedelta(seconds=4)
    for index in range(steps):
        command, output, exit_code = _COMMANDS[index % len(_COMMANDS)]
        call = _call(index, steps, command)
        said = "The quoted field is split at its comma, so the parser has to know quotes." if index % 3 == 0 else None
        messages.append(Message(role="assistant", content=said, tool_calls=(call,)))
        is_write = call.function.name == "write_file"
        observation = Observation(
            call_id=call.id,
            tool_name=call.function.name,
            status="ok" if is_write or exit_code == 0 else "error",
            output="" if is_write else f"{output}step {index}\n",
            exit_code=None if is_write else exit_code,
            output_bytes=len(output),
            duration_s=0.2 + index % 5 / 4,
        )
        messages.append(Message(role="tool", tool_call_id=call.id, name=call.function.name, content=observation.output))
        ids = tuple(range(1000 + index, 1040 + index))
        taken.append(
            Step(
                index=index,
                message_index=2 + 2 * index,
                started_at=began,
                finish_reason="tool_calls",
                usage=Usage(prompt_tokens=900 + 140 * index, completion_tokens=40, cached_tokens=800, cost_usd=0.0004),
                llm_s=1.1 + index % 4 / 2,
                env_s=observation.duration_s,
                observations=(observation,),
                tokens=StepTokens(
                    prefix_len=0 if index == 0 else 800 + 140 * index,
                    prompt=tuple(range(900 if index == 0 else 100)),
                    completion=ids,
                    logprobs=tuple(-0.02 * (place % 13) ** 2 for place in range(40)),
                )
                if tokens
                else None,
            )
        )
        began += timedelta(seconds=1.5 + 1.1 + observation.duration_s)
    return _ended(kind, run, messages, taken, began)


def _call(index, steps, command):
    name, arguments = "execute_command", {"command": command}
    if index == steps - 2:
        name, arguments = "write_file", {"filepath": "src/parser.py", "content": _PATCH}
    return ToolCall(id=f"c{index}", function=FunctionCall(name=name, arguments=json.dumps(arguments)))


def _ended(kind, run, messages, steps, ended):
    spent = {"llm_s": sum(each.llm_s for each in steps), "env_s": sum(each.env_s for each in steps)}
    fields = {
        "spec": RolloutSpec(run_id=run, environment_id="e", sample_index=0, group_size=8),
        "status": "completed",
        "terminated_reason": "completed",
        "reward": float(kind == "passed") or 0.5,
        "success": kind == "passed",
        "rewards": (NamedReward(name="tests", value=float(kind == "passed") or 0.5),),
        "grading_mode": "fresh",
        "changed_outside": 0,
        "test_results": _tests(kind, ended),
    }
    if kind in ("sandbox", "model"):
        said = {"sandbox": "the container ended with 137 while a command ran", "model": "no answer within 60 s"}[kind]
        fields = {
            "spec": fields["spec"],
            "status": "failed",
            "terminated_reason": {"sandbox": "environment_error", "model": "llm_error"}[kind],
            "failure_cause": kind,
            "error_type": {"sandbox": "SandboxLost", "model": "ModelTimeout"}[kind],
            "error_message": said,
        }
    return Trajectory(
        **fields,
        started_at=BEGAN,
        ended_at=ended + timedelta(seconds=6),
        messages=tuple(messages),
        steps=tuple(steps),
        model="qwen3-coder-30b",
        base_url_host="127.0.0.1:8000",
        sampling_params='{"temperature": 0.7, "max_tokens": 4096}',
        docker_image="realwork/base:bookworm",
        node_id="node-1",
        environment='{"id": "e", "docker_image": "realwork/base:bookworm"}',
        plugin_data='{"trajectory_analyzer": {"calls": 1, "suggestions": ["It reads the same file 4 times."]}}',
        timing=Timing(
            queue_s=30, image_s=0.4, boot_s=1.9, agent_s=sum(spent.values()) + 3, **spent, grade_s=5.2, store_s=0.05
        ),
    )


def _tests(kind, moment):
    failure = "def test_quotes():\n>   assert parse('a,\"b,c\"') == ['a', 'b,c']\nE   AssertionError: 3 fields\n"
    command = "python -m pytest -q tests"
    bad = kind != "passed"
    case = {"command": command, "kind": "case", "started_at": moment}
    return (
        TestResult(
            name="test -f src/parser.py",
            command="test -f src/parser.py",
            status="passed",
            started_at=moment,
            duration_s=0.01,
            exit_code=0,
        ),
        TestResult(
            name=command,
            command=command,
            status="failed" if bad else "passed",
            started_at=moment,
            duration_s=1.4,
            exit_code=1 if bad else 0,
            output=f"{failure if bad else ''}{'1 failed, 6 passed' if bad else '7 passed'} in 0.42s\n",
        ),
        TestResult(name="tests/test_parser.py::test_plain", status="passed", duration_s=0.01, **case),
        TestResult(
            name="tests/test_parser.py::test_quotes",
            status="failed" if bad else "passed",
            duration_s=0.02,
            error=failure if bad else "",
            **case,
        ),
    )


def write_big(directory, *, rollouts=10_000, steps=50, group=8, run="big", part_rows=2000, tokens=False):
    """A run of so many rollouts: few conversations, repeated, with numbers that differ; success grows with time."""
    distinct = table([conversation(kind, steps=steps, run=run, tokens=tokens) for kind in KINDS])
    chance = random.Random(run)
    (directory / FOLDER).mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text("{}")
    hard = [chance.random() for _ in range(rollouts // group + 1)]
    for number, begin in enumerate(range(0, rollouts, part_rows)):
        rows = [
            _numbers(place, rollouts, group, run, chance, hard)
            for place in range(begin, min(begin + part_rows, rollouts))
        ]
        part = distinct.take(pa.array([KINDS.index(row.pop("kind")) for row in rows]))
        for name in rows[0]:
            place = SCHEMA.get_field_index(name)
            field = SCHEMA.field(name)
            part = part.set_column(place, field, pa.array([row[name] for row in rows], field.type))
        size = part.nbytes // max(1, part.num_rows)
        with (directory / FOLDER / part_name(number + 1)).open("wb") as file:
            write(file, ((batch, batch.num_rows * size) for batch in part.to_batches(max_chunksize=128)))


def _numbers(place, rollouts, group, run, chance, hard):
    environment = place // group
    name = f"{('csv', 'http', 'sql', 'git', 'json')[environment % 5]}_{environment:04d}"
    passes = chance.random() < min(0.97, max(0.02, 1.25 * (1 - hard[environment]) - 0.35 + 0.45 * place / rollouts))
    kind = "passed" if passes else "failed"
    if chance.random() < 0.02:
        kind = chance.choice(("sandbox", "model"))
    reward = {"passed": 1.0, "failed": chance.choice((0.0, 0.0, 0.5))}.get(kind)
    began = BEGAN + timedelta(seconds=place * 1.3 + chance.random() * 20)
    return {
        "kind": kind,
        "trajectory_id": f"{run}:{name}:{place % group}:0",
        "environment_id": name,
        "task_id": name,
        "group_id": f"{run}:{name}",
        "group_size": group,
        "sample_index": place % group,
        "reward": reward,
        "n_steps": chance.randint(8, 50),
        "total_prompt_tokens": chance.randint(20_000, 180_000),
        "total_completion_tokens": chance.randint(1_000, 6_000),
        "total_cost_usd": chance.random() / 8,
        "node_id": f"node-{chance.randint(1, 6)}",
        "started_at": began,
        "ended_at": began + timedelta(seconds=60 + 140 * chance.random()),
    }
