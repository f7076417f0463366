"""A trajectory as `show` renders it."""

import asyncio
import io
import re

import pytest
from rich.console import Console

from realwork.analysis.trainable import cautions, obstacles
from realwork.cli.folding import FIRST_LINES, LONGEST_LINE, MOST_LINES, folded
from realwork.cli.trajectories import Renderer
from realwork.types import StepTokens, Window
from tests.analysis.records import make_run
from tests.dataset.records import failed, graded, rich
from tests.dataset.store import in_flight
from tests.e2e.command import on_terminal, plain, realwork

HOSTILE = "\x1b[2J\x1b]0;owned\x07 <script>alert(1)</script> [bold]not markup[/bold] \u202eevil\u202c"


def rendered(trajectory, **options):
    console = Console(file=io.StringIO(), width=120, soft_wrap=True, highlight=False, emoji=False)
    Renderer(console, **options).trajectory(trajectory)
    return console.file.getvalue()


def numbered(count):
    return "\n".join(f"line {number}" for number in range(count))


def test_a_trajectory_says_what_was_called_how_it_ended_and_how_long_it_took():
    text = plain(rendered(rich()))
    for said in (
        "model policy at 127.0.0.1:8000",
        "assistant step 0, model 2.0 s, commands 1.8 s, 100+20 tokens, 1 retries, 2 messages not shown to it",
        "-> write_file a.py print(1)",
        '-> execute_command rewritten by guard python a.py {"timeout": 5, "working_directory": "/w"}',
        "tool execute_command error, exit 3, 1.50 s, waited 0.1 s for a CPU slot 5 passed warning [kept of 4096 bytes",
        "failed exit 1 0.5 s check 1 output of 1 AssertionError",
        "skipped 0.2 s a.py::test_b",
        "reward 0.50: 1 of 2 test commands passed in a fresh sandbox",
        "for a trainer: There are no token ids of step 1, which stand in no sample.",
        "for a trainer: 3 files changed outside the working directory, where no test saw them.",
    ):
        assert said in text


def test_what_an_agent_printed_is_shown_as_text_wherever_it_stands():
    hostile = rich(output=HOSTILE, model=HOSTILE, plugin_data='{"p": {"suggestions": ["\\u001b[2J"]}}')
    messages = [each.model_copy(update={"content": HOSTILE, "name": HOSTILE}) for each in hostile.messages]
    tests = [each.model_copy(update={"output": HOSTILE, "command": HOSTILE}) for each in hostile.test_results]
    hostile = hostile.model_copy(update={"messages": tuple(messages), "test_results": tuple(tests)})
    lost = failed().model_copy(update={"error_message": HOSTILE})
    for trajectory in (hostile, lost):
        for full in (False, True):
            text = rendered(trajectory, full=full)
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
            assert "␛[2J␛]0;owned␇ <script>alert(1)</script> [bold]not markup[/bold] ⟨U+202E⟩evil⟨U+202C⟩" in text


def test_a_rollout_in_flight_is_shown_with_the_steps_so_far(tmp_path):
    async def play():
        record = rich(4)
        async with in_flight(tmp_path, record):
            return await asyncio.to_thread(realwork, "show", tmp_path, record.spec.trajectory_id, cwd=tmp_path)

    shown = asyncio.run(play())
    assert shown.returncode == 0, shown.stderr
    assert "write_file" in shown.stdout
    assert "step 0" in shown.stdout


def test_a_diff_is_shown_where_the_row_has_one():
    assert "─ diff ─" not in rendered(rich(final_diff=""))
    text = rendered(rich(final_diff=f"--- a/x\n+++ b/x\n+{HOSTILE}\n"))
    assert "─ diff ─" in text
    assert "\n+␛[2J" in text
    assert folded("+new\n-old", language="diff").spans


def test_a_long_result_is_folded_with_a_count_and_shown_whole_on_request():
    long = rich(output=numbered(1000))
    short, whole = rendered(long), rendered(long, full=True)
    assert f"[... {1000 - MOST_LINES} lines left out ...]" in short
    assert "line 0\n" in short
    assert "line 999\n" in short
    assert "line 500\n" not in short
    assert "left out ...]" not in whole
    assert all(f"line {number}\n" in whole for number in range(1000))


def test_a_line_of_megabytes_is_cut_with_a_count():
    shown = folded("y" * 5_000_000).plain
    assert len(shown) < LONGEST_LINE + 100
    assert shown.endswith(f"[... {5_000_000 - LONGEST_LINE} characters left out ...]")
    assert len(folded("y" * 5_000_000, full=True)) == 5_000_000


@pytest.mark.parametrize("lines", [1, MOST_LINES, MOST_LINES + 1, 200])
@pytest.mark.parametrize("language", ["", "bash", "json", "no such language"])
def test_folding_keeps_every_line_or_counts_it(lines, language):
    shown = folded(numbered(lines), language=language, indent="  ").plain.split("\n")
    kept = min(lines, MOST_LINES)
    assert [line for line in shown if line.startswith("  line")] == [
        f"  line {number}" for number in range(lines) if number < FIRST_LINES or lines - number <= kept - FIRST_LINES
    ] or kept == lines == len(shown)
    assert len(shown) == kept + (lines > MOST_LINES)


def test_commands_and_contents_are_highlighted_and_what_is_no_json_is_shown_as_it_is():
    assert folded("if true; then echo $HOME; fi", language="bash").spans
    broken = rich()
    call = broken.messages[2].tool_calls[0]
    call = call.model_copy(update={"function": call.function.model_copy(update={"arguments": "{broken"})})
    message = broken.messages[2].model_copy(update={"tool_calls": (call,)})
    text = rendered(broken.model_copy(update={"messages": (*broken.messages[:2], message)}))
    assert "-> write_file\n   {broken\n" in text


def with_tokens(*prefixes):
    """A graded trajectory whose steps have token ids, whose prompts share so many with what was before."""
    (first, _) = rich().steps
    tokens = [StepTokens(prefix_len=each, prompt=(1, 2, 3), completion=(4, 5), logprobs=(-1, -1)) for each in prefixes]
    whole = first.model_copy(update={"window": Window()})
    steps = [whole.model_copy(update={"index": index, "tokens": each}) for index, each in enumerate(tokens)]
    return graded(steps=tuple(steps), changed_outside=0)


def test_what_keeps_a_trainer_from_it_is_said():
    assert obstacles(graded()) == []
    (why, what) = obstacles(failed())
    assert why == "Its sandbox failed (SandboxLost)."
    assert "has to leave this row out" in what
    (why, _) = obstacles(failed().model_copy(update={"status": "cancelled"}))
    assert why == "The rollout was cancelled before it had a grade."


def test_what_a_trainer_has_to_mind_is_said():
    assert cautions(with_tokens(0, 5)) == []
    assert cautions(with_tokens(0, 0)) == ["Its prompts do not go on from one another: it stands in 2 samples."]
    assert cautions(graded()) == ["The agent took no step."]
    assert cautions(rich())[0] == "There are no token ids of step 1, which stand in no sample."
    shortened, outside = cautions(rich())[1:]
    assert shortened.startswith("The context was shortened")
    assert outside.startswith("3 files changed outside the working directory")
    (no_ids,) = cautions(graded(changed_outside=0, steps=(rich().steps[1],)))
    assert no_ids.startswith("The endpoint told no token ids")
    versions = zip(with_tokens(0, 5).steps, ("7", "8"), strict=True)
    steps = tuple(each.model_copy(update={"policy_version": version}) for each, version in versions)
    (versions, limit) = cautions(graded(status="truncated", steps=steps, changed_outside=0))
    assert versions.startswith("The policy changed while it was played")
    assert limit.startswith("A limit ended it (completed)")


def test_one_is_paged_in_colours_on_a_terminal_and_plain_where_it_is_piped(tmp_path):
    make_run(tmp_path, [rich(output=f"{HOSTILE}\n{numbered(50)}")])
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\necho paged $LESS\ntee {tmp_path}/paged\n")
    pager.chmod(0o755)
    code, _ = on_terminal("show", tmp_path, "r1:calc", cwd=tmp_path, PAGER=str(pager))
    paged = (tmp_path / "paged").read_text()
    assert code == 0
    assert "\x1b[" in paged
    assert "␛[2J" in paged
    assert "\x1b[2J" not in paged
    assert "lines left out" in paged
    piped = realwork("show", tmp_path, "r1:calc", "--full", cwd=tmp_path).stdout
    assert "\x1b" not in piped
    assert "line 25\n" in piped
    assert "lines left out" not in piped
