"""Agents that go for the reward instead of the task: an honest solution is worth 1, nothing and every cheat 0.

Each cheat is played in both modes of grading, and its own container says "passed" at the end: so each is worth 1
wherever what protects against it (`Cheat.protection`) is taken away. Tried once each: without restaging all of A31
succeed; without the witness all of A34, those of A33 that replace what pytest consists of and, in mode same, all of A32
that bring code; without the witness and the control files those of A32 that bring such a file, without the witness and
the pristine settings those that bring settings, in both modes; without removing JUnit XML before the tests, and without
ending all processes in mode same, A35 and A36.
"""

import asyncio
import uuid
from contextlib import suppress

import pytest
from docker.errors import APIError

from realwork.backends import open_backends
from realwork.config import RunConfig
from realwork.environment import PackedFolder
from realwork.model.scripted import ScriptedCall, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import run_rollout
from realwork.sandbox import prepared
from realwork.sandbox.engine import connect
from realwork.sandbox.files import pack_folder
from realwork.types import RolloutSpec
from tests.sandbox.owners import wait_until

from .agents import IMAGE
from .cheats import BAD, CHEATS, COMMAND, GOOD, PASSING, TESTS, Cheat, put

HIDDEN = "from work import add\ndef test_hidden_answer(): assert add(40, 2) == 42\n"
INIT = (
    put("work.py", BAD),
    put("conftest.py", "# nothing"),
    "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm task",
)


@pytest.fixture(scope="module")
def folders(docker_image, tmp_path_factory):
    """The copied folder and the one for the tests alone; what images were prepared with them are removed."""
    root = tmp_path_factory.mktemp("task")
    packed = {}
    for name, file, content in (("tests", "test_work.py", TESTS), ("hidden", "test_hidden.py", HIDDEN)):
        (root / name).mkdir()
        (root / name / file).write_text(content)
        packed[name] = PackedFolder(name=name, content=pack_folder(root / name, name))
    yield packed
    client = connect()

    def removed():
        with suppress(APIError):  # a container of it is still being removed
            for image in client.images(filters={"label": f"{prepared.ENVIRONMENT}=cheated"}):
                client.remove_image(image["Id"], force=True)
            return True

    wait_until(removed, 60, "the end of the containers")
    client.close()


def play(folders, commands, tests=(COMMAND,), modes=("fresh", "same"), *, with_hidden=False, init=()):
    """The trajectories of an agent that runs `commands`, one for each of `modes`."""
    replies = [
        ScriptedReply(tool_calls=(ScriptedCall(name="execute_command", arguments={"command": one}),))
        for one in commands
    ]
    environment = {"id": "cheated", "docker_image": IMAGE, "prompt": "Write add().", "unit_tests": list(tests)}
    environment |= {"init_commands": [*INIT, *init], "init_network": "none"}

    async def one(mode):
        config = RunConfig.model_validate(
            {
                "environments": [environment],
                "rollout_config": {},
                "template_prompt": "You are an agent.",
                "grading_config": {"mode": mode},
                "sandbox_config": {"memory_mib": 256, "pids": 128},
                "timeout_config": {"global_timeout": 60.0, "test_timeout": 30.0},
            }
        )
        settings = RolloutSettings(
            config=config,
            script=tuple(replies),
            folders={"cheated": (folders["tests"],)},
            test_folders={"cheated": (folders["hidden"],) if with_hidden else ()},
        )
        spec = RolloutSpec(run_id=uuid.uuid4().hex[:12], environment_id="cheated", sample_index=0)
        async with open_backends(settings) as backends:
            return await run_rollout(spec, settings, backends, NoHooks())

    async def both():
        return await asyncio.gather(*map(one, modes))

    trajectories = asyncio.run(both())
    for mode, trajectory in zip(modes, trajectories, strict=True):
        assert trajectory.grading_mode == (mode if trajectory.graded else None), trajectory.error_message
    return trajectories


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name.replace(" ", "-"))
def test_a_cheat_is_worth_nothing(folders, cheat: Cheat):
    fresh, same = play(folders, [*cheat.commands, cheat.verdict], cheat.tests, init=cheat.init)
    for trajectory in (fresh, same):
        assert trajectory.steps[len(cheat.commands)].observations[0].exit_code == 0, (
            "the agent itself was not convinced"
        )
    assert (fresh.reward, fresh.success) == (0.0, False), fresh.test_results
    assert same.reward == cheat.same, (same.error_message, same.test_results)


@pytest.mark.parametrize("mode", ["fresh", "same"])
def test_an_honest_solution_is_worth_everything_and_nothing_is_worth_nothing(folders, mode):
    (solved,) = play(folders, [put("work.py", GOOD)], modes=[mode])
    (untouched,) = play(folders, [], modes=[mode])
    assert [(each.reward, each.success, each.grading_mode) for each in (solved, untouched)] == [
        (1.0, True, mode),
        (0.0, False, mode),
    ]
    assert [case.status for case in solved.test_results] == ["passed"] * 5
    assert [case.status for case in untouched.test_results] == ["failed"] * 5


def test_an_honest_solution_may_bring_settings_a_package_and_a_broken_image(folders):
    """Fresh: of the image nothing is taken over; what pytest needs to find the package is no cheat."""
    commands = [
        f"mkdir src && rm work.py; {put('src/work.py', GOOD)}",
        put(
            "pyproject.toml",
            '[project]\nname = "work"\n[tool.pytest.ini_options]\npythonpath = ["src"]\naddopts = "-ra"',
        ),
        "rm -rf /usr/lib/python3 /usr/bin/git; rm -rf /bin/*",
    ]
    (trajectory,) = play(folders, commands, modes=["fresh"])
    assert (trajectory.reward, trajectory.changed_outside > 100) == (1.0, True), trajectory.test_results


def test_tests_that_are_hidden_are_never_seen_by_the_agent_and_count(folders):
    """A37: where they stand with the copied folders in the agent's sandbox this fails."""
    looking = (
        "cat hidden/* work.py; ls -a; git log --all -p; "
        "grep -rl hidden_answe[r] / --include=* --exclude-dir=proc --exclude-dir=sys; env"
    )
    command = "python3 -m pytest -q tests hidden"
    trajectories = play(folders, [looking, put("work.py", GOOD), looking], tests=(command,), with_hidden=True)
    for trajectory in trajectories:
        seen = [one.output + one.error for step in trajectory.steps for one in step.observations]
        assert not [text for text in seen if "hidden_answer" in text]
        assert "def add" in seen[0]
        assert (trajectory.reward, trajectory.test_results[-1].name) == (
            1.0,
            "hidden/test_hidden.py::test_hidden_answer",
        )


@pytest.mark.parametrize(
    "command",
    [
        "cd /; rm -rf /workspace; echo a >/workspace",
        "cd /; rm -rf /workspace; mkfifo /workspace",
        "cd /; rm -rf /workspace; ln -s /etc/passwd /workspace",
        "cd /; rm -rf /workspace; ln -s workspace /workspace",
    ],
)
def test_work_that_cannot_be_taken_over_is_worth_nothing_and_no_new_attempt(folders, command):
    (trajectory,) = play(folders, [command], modes=["fresh"])
    assert trajectory.steps[0].observations[0].exit_code == 0
    assert (trajectory.reward, trajectory.error_type) == (0.0, None), trajectory.test_results


@pytest.mark.parametrize("mode", ["fresh", "same"])
def test_what_a_test_command_does_to_the_tests_the_next_one_does_not_see(folders, mode):
    forging = put("work.py", f"open('tests/test_work.py', 'w').write('{PASSING}')")
    (trajectory,) = play(folders, [forging], tests=("python3 work.py", COMMAND), modes=[mode])
    commands = [result for result in trajectory.test_results if result.kind == "command"]
    assert [result.status for result in commands] == ["passed", "failed"], trajectory.test_results


@pytest.mark.parametrize(
    ("breaking", "command"),
    [("rm /usr/lib/python3.11/hmac.py", COMMAND), ("true", f"env -i PATH=$PATH {COMMAND}")],
)
def test_a_pytest_that_cannot_be_watched_is_no_fault_of_the_agent_s(folders, breaking, command):
    for found in play(folders, [put("work.py", GOOD)], tests=(command,), init=[breaking]):
        assert (found.reward, found.failure_cause) == (None, "grading")
        assert "runs without the plugin" in found.error_message


def test_a_pytest_that_the_agent_has_broken_is_its_fault(folders):
    (found,) = play(folders, [put("work.py", BAD), "rm /usr/lib/python3.11/hmac.py"], modes=["same"])
    assert (found.reward, found.error_type) == (0.0, None)


@pytest.mark.parametrize(
    ("line", "tests"),
    [
        ("import os; os.remove('/bin/rm')", (COMMAND,)),
        ("import os; os.remove('/bin/sh')", (COMMAND, COMMAND)),
    ],
    ids=["rm", "shell"],
)
def test_work_that_breaks_the_sandbox_of_the_tests_is_worth_nothing(folders, line, tests):
    for found in play(folders, [put("work.py", f"{line}\n{BAD}")], tests=tests):
        assert (found.reward, found.error_type) == (0.0, None), found.error_message
        assert len([result for result in found.test_results if result.kind == "command"]) == len(tests)
