"""How a run that goes on is told of, to people and to programs."""

import io
import json
import re
import time

import pytest
from rich.console import Console

from realwork.cli import events
from realwork.cli.progress import MAX_ENVIRONMENTS_SHOWN, TextProgress, said
from realwork.cli.tally import Tally
from realwork.distributed.control import InFlight
from realwork.distributed.result import RunResult
from realwork.schedule import EnvironmentProgress
from realwork.types import Doing, RolloutSpec, RolloutSummary
from tests.e2e.command import REPOSITORY, realwork, run_file


def spec(environment="e", sample=0):
    return RolloutSpec(run_id="r", environment_id=environment, sample_index=sample)


def ended(environment="e", sample=0, **fields):
    known = {"status": "completed", "terminated_reason": "completed", "success": True, "reward": 1.0}
    return RolloutSummary(spec=spec(environment, sample), **known | fields)


def standing(environment="e", planned=4, **fields):
    return EnvironmentProgress(environment_id=environment, planned=planned, **fields)


def in_flight(sample=0, **fields):
    doing = Doing(**{"phase": "acting", "step": 3, "detail": "pytest\t-q", "seconds": 2.5} | fields)
    name = f"r:e:{sample}:0"
    return InFlight(trajectory_id=name, environment_id="e", node="n0", seconds=61.0, doing=doing)


def test_what_was_done_before_is_not_counted_in_the_rate_nor_in_the_time_left():
    tally = Tally()
    tally.begin([standing(planned=10, graded=4, waiting=6)])
    assert (tally.to_do, tally.done, tally.left_s) == (6, 0, None)
    time.sleep(0.05)
    tally.add(ended(prompt_tokens=5, completion_tokens=2, cost_usd=0.5), standing(planned=10, graded=6, waiting=4))
    assert (tally.done, tally.prompt_tokens, tally.completion_tokens, tally.cost_usd) == (2, 5, 2, 0.5)
    assert tally.left_s == pytest.approx(2 * tally.elapsed_s, rel=0.1)
    tally.add(ended(status="failed", success=None, failure_cause="model"), standing(planned=10, graded=9, failed=1))
    assert (tally.done, tally.left_s, dict(tally.causes)) == (6, None, {"model": 1})


def picture(told):
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(told.picture())
    return console.export_text()


def test_the_picture_has_environments_what_rollouts_are_doing_and_the_sums():
    told = TextProgress(quiet=True)
    told.tally.begin([standing("a", in_flight=2, waiting=2), standing("b")])
    told.rollout_started(spec("a"))
    told.rollout_started(spec("a", 1))
    told.tally.add(ended("a", prompt_tokens=900, completion_tokens=100, cost_usd=0.25), standing("a", graded=1))
    told.looked([in_flight()])
    text = picture(told)
    assert re.search(r"a +[^ ]+ +1/4", text)
    assert re.search(r"e:0:0 +n0 +1 min 01 s +3 +\$ pytest -q +2\.5 s", text)
    assert "and 1 more" in text
    assert "1/8 rollouts, 2 in flight" in text
    assert "1000 tokens, 0.2500 USD" in text
    assert "left" in text


def test_of_many_environments_those_that_are_played_are_shown():
    told = TextProgress(quiet=True)
    every = [standing(f"e{number}", in_flight=int(number in (37, 91))) for number in range(100)]
    told.tally.begin(every)
    text = picture(told)
    assert "e37 " in text
    assert "e91 " in text
    assert f"and {100 - MAX_ENVIRONMENTS_SHOWN} more" in text


@pytest.mark.parametrize(
    ("doing", "text"),
    [
        (None, "gives no answer"),
        (Doing(phase="booting"), "boots its sandbox"),
        (Doing(phase="acting", detail="echo\n\x1b[2J  x"), "$ echo ␛[2J x"),
    ],
)
def test_what_a_rollout_is_doing_is_one_line_of_text(doing, text):
    assert said(doing) == text


def test_on_no_terminal_people_get_a_line_from_time_to_time(capfd):
    with TextProgress(quiet=False, every_s=0.05) as told:
        told.started("/out", [standing(graded=1, waiting=3)], 2)
        told.rollout_started(spec())
        told.rollout_finished(ended(prompt_tokens=9, cost_usd=0.5), standing(graded=2, successful=1, waiting=2))
        told.rollout_finished(
            ended(sample=1, status="failed", success=None, failure_cause="model"),
            standing(graded=2, successful=1, failed=1),
        )
        time.sleep(0.3)
    found = capfd.readouterr().err.splitlines()
    assert found[0] == "3 rollouts, 2 at once. Trajectories go to /out"
    told_again = [line for line in found if " in flight, " in line]
    assert len(told_again) >= 2
    pattern = r"2/3 rollouts, 0 in flight, .* successful, .*/s, 9 tokens, 0\.5000 USD, 1 failed: model, .* elapsed.*"
    assert re.fullmatch(pattern, told_again[-1])


def lines(capfd):
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_programs_get_an_object_for_each_event(capfd):
    told = events.JsonProgress(every_s=0.05)
    with told:
        told.started("/out", [standing(graded=1, waiting=3)], 2)
        told.rollout_started(spec())
        told.looked([in_flight(), in_flight(1).model_copy(update={"doing": None})])
        time.sleep(0.2)
        told.rollout_finished(ended(tests_passed=1, tests_total=1), standing(graded=2, waiting=2))
        told.rollout_finished(ended(status="failed", success=None, failure_cause="node"), standing(graded=2))
        told.note("two\nlines")
        told.finished(
            RunResult(run_id="r", directory="/out", environments=(standing(graded=4),), failures={}, duration_s=1.0)
        )
    found = lines(capfd)
    kinds = [each["event"] for each in found]
    assert kinds[:2] == ["started", "progress"]
    assert kinds[-4:] == ["rollout", "rollout", "note", "finished"]
    assert (found[0]["rollouts"], found[0]["done_before"], found[0]["parallel"]) == (3, 1, 2)
    first, second = found[1]["longest"]
    assert (first["phase"], first["step"], first["command"], first["in_flight_s"]) == ("acting", 3, "pytest\t-q", 61.0)
    assert (second["trajectory_id"], second["phase"]) == ("r:e:1:0", None)
    assert found[-4]["environment"]["graded"] == 2
    assert found[-2]["message"] == "two\nlines"
    assert (found[-1]["exit_code"], found[-1]["graded"]) == (0, 4)


def table():
    """The table of events, from the models: what the README must hold."""
    rows = ["| event | when | fields besides `event` and `at` |", "| --- | --- | --- |"]
    for each in events.EVENTS:
        fields = ", ".join(f"`{name}`" for name in each.model_fields if name not in ("event", "at"))
        rows.append(f"| `{each.model_fields['event'].default}` | {each.WHEN} | {fields} |")
    return "\n".join(rows)


def test_the_readme_has_every_event_and_field():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert table() in readme
    longest = ", ".join(f"`{name}`" for name in events.Rollout.model_fields)
    assert longest in readme


def test_a_run_tells_programs_all_on_standard_error(tmp_path):
    reply = {"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}
    (tmp_path / "script.json").write_text(json.dumps([reply]))
    file = run_file(tmp_path, llm_config={"model": "scripted:script.json"}, episode_control_config={"max_episodes": 2})
    options = ("--no-ray", "--run-id", "r", "--sandbox", "local", "--progress", "json", "--quiet")
    played = realwork("run", file, *options, cwd=tmp_path)
    assert (played.returncode, played.stdout) == (0, "")
    found = [json.loads(line) for line in played.stderr.splitlines()]
    assert [each["event"] for each in found if each["event"] != "note"] == ["started", "rollout", "rollout", "finished"]
    assert "NO ISOLATION" in found[0]["message"]
    assert found[-1]["directory"] == str(tmp_path / "out" / "r")
