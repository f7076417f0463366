import asyncio
import time

import pytest

from realwork.plugins.base import PluginContext
from realwork.plugins.builtin.performance_rollout_manager import PerformanceRolloutManager
from realwork.plugins.builtin.safety_filter import SafetyFilter
from realwork.plugins.builtin.trajectory_analyzer import TrajectoryAnalyzer
from realwork.schedule import Schedule
from realwork.types import CommandAction, DoneAction, RolloutSummary, WriteAction
from tests.dataset.records import rich
from tests.plugins.conftest import config

HARMLESS = [
    "git log --format=%h",
    "rm -rf /tmp/x",
    "echo shutdown",
    "grep -r halt /",
    "sudo echo reboot",
    "cat > x.py <<EOF\nshutdown now\nrm -rf /\nEOF\npython x.py",
    "python -c 'import os; os.remove(\"/x\")'",
    "rm -rf ./build /workspace/out",
    "# rm -rf /\nls",
    "echo don't # it's",
    "dd if=/dev/zero of=/dev/null",
    "dd if=/dev/zero of=/dev/stdout",
    "dd if=/dev/zero of=/dev/shm/x bs=1M count=1",
    "echo 'rm -rf /'",
    "chmod -R 755 /workspace",
    "ls; echo ok && cat a | grep shutdown",
    "rm /",
    "cd / && ls",
    "echo a#b",
    "find / -name x",
    "git commit -m 'reboot; shutdown now'",
    "timeout 5 pytest -k halt",
    "FOO=1 make -j2 > out.txt 2>&1",
    "for f in a b; do echo $f; done",
    "",
    "'",
    "echo $((1+2))",
    "awk '{print $1}' f | xargs -n1 echo",
    "case x in a) ls;; esac",
    'echo "$(git log)"',
    "./shutdown",
    "/workspace/bin/reboot --dry-run",
    "/shutdown",
    "rm -rf ~/.cache/x",
    "rm -rf $HOME/build",
    "find /tmp/x -delete",
    "find / -name '*.pyc' -delete",
    "find / -type d -ls",
    "find . -exec rm -rf {} +",
    "echo reboot | sh script.sh",
    "echo reboot | grep halt",
    "echo reboot || sh",
    "echo reboot; sh -c ls",
    "cat <<< reboot",
    "bash run.sh <<< reboot",
    "watch -n 1 ls",
    "trap - EXIT",
    "trap 'rm -rf /tmp/x' EXIT INT",
    "printf $'reboot\\n'",
    "make > /dev/null",
    "echo x > /dev/stderr",
    "exec 3<>/dev/tcp/localhost/80",
    "cat < /dev/sda",
]

HARMFUL = [
    "rm -rf /",
    "shutdown now",
    "ls; rm -rf /",
    "true && shutdown now",
    "echo | sudo reboot",
    "sudo -u root rm -rf /",
    "echo $(rm -rf /)",
    'echo "$(rm -rf /)"',
    "echo `rm -rf /`",
    "sh -c 'rm -rf /'",
    'bash -lc "ls; rm -fr /"',
    "/bin/rm -rf /",
    "/sbin/shutdown -h now",
    "rm -r -f /",
    "rm --recursive --force /",
    "rm -rf -- /",
    "rm -rf //",
    "rm -rf /../",
    "rm -rf '/'",
    'r""m -rf /',
    "\\rm -rf /",
    "A=1 rm -rf /",
    "if true; then rm -rf /; fi",
    "(rm -rf /)",
    "{ rm -rf /; }",
    "sh <<EOF\nrm -rf /\nEOF",
    "eval 'rm -rf /'",
    "rm -rf /*",
    "rm -rf / --no-preserve-root",
    "echo a#b; rm -rf /",
    "ls\nrm -rf /",
    "ls & shutdown",
    "timeout 5 rm -rf /",
    "nohup env A=1 rm -rf / &",
    "rm -rf \\\n/",
    "echo 'x\nrm -rf /\n",
    "rm -rf / > /dev/null 2>&1",
    "bash -c \"bash -c 'rm -rf /'\"",
    "rm -rf /;ls",
    "2>&1 rm -rf /",
    "mkfs.ext4 /dev/sda",
    "dd if=/dev/zero of=/dev/sda",
    "command rm -rf /",
    "while true; do shutdown; done",
    "! shutdown",
    "for x in a b; do reboot; done",
    "find . | xargs rm -rf /",
    "chmod -R 777 /",
    "rm -rf /tmp/x /",
    "find / -delete",
    "find / -xdev -type f -delete",
    "find . -name x -exec reboot \\;",
    "rm -rf ~",
    "rm -rf ~/",
    "rm -rf ~/*",
    'rm -rf "$HOME"',
    "rm -rf ${HOME}/",
    'bash <<< "reboot"',
    "<<< reboot sudo sh -s",
    "echo reboot | sh",
    "printf 'ls\\nreboot\\n' | sudo bash -x",
    "echo 'rm -rf /' | tee script | sh -",
    "watch -n1 reboot",
    "watch -n 1 'ls; rm -rf /'",
    "$'reboot'",
    "$'\\x72eboot'",
    "rm -rf $'/'",
    "trap reboot EXIT",
    "trap -- 'ls; reboot' EXIT",
    "telinit 0",
    "> /dev/sda",
    "cat image >> /dev/nvme0n1",
    "true >| '/dev/vda'",
    "/usr/bin/../sbin/reboot",
]


def is_blocked(command, **options):
    actions = [CommandAction(command=command)]
    return not asyncio.run(SafetyFilter(**options).filter_actions(actions, PluginContext()))


@pytest.mark.parametrize("command", HARMLESS)
def test_a_harmless_command_passes(command):
    assert not is_blocked(command)


@pytest.mark.parametrize("command", HARMFUL)
def test_a_harmful_command_is_blocked_however_it_is_wrapped(command):
    assert is_blocked(command)


def test_only_commands_are_looked_at():
    actions = [WriteAction(path="x", content="rm -rf /"), DoneAction(message="shutdown now")]
    assert asyncio.run(SafetyFilter().filter_actions(actions, PluginContext())) == actions


def test_given_commands_and_patterns_are_blocked_beside_those_that_are_built_in():
    more = {"blocked_commands": ["curl", "/opt/x/*"], "blocked_patterns": ["pip install -u", "> /etc/*"]}
    for command in ("curl http://x", "/usr/bin/curl x", "/opt/x/y", "pip install -qU x", "echo > /etc/passwd"):
        assert is_blocked(command, **more)
        assert not is_blocked(command)
    for command in ("sudo shutdown now", "rm -rf /", "mkfs.ext4 /dev/sda", "chmod -R 777 /", "find / -delete"):
        assert is_blocked(command, **more)
        assert not is_blocked(command, **more, defaults=False)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"blocked_commands": "curl"}, "lists of texts"),
        ({"blocked_commands": [1]}, "lists of texts"),
        ({"blocked_commands": ["git push"]}, "'git push' has a space.*blocked_patterns"),
        ({"blocked_commands": ["rm|dd"]}, "looks like a regular expression"),
        ({"blocked_patterns": ["rm\\s+-rf.*"]}, "looks like a regular expression"),
        ({"blocked_patterns": ["(unclosed"]}, "looks like a regular expression"),
        ({"blocked_patterns": ["^git push$"]}, "looks like a regular expression"),
        ({"blocked_patterns": ["rm -rf.*"]}, "'-rf.*' in 'rm -rf.*' is no option"),
        ({"defaults": "no"}, "defaults must be true or false"),
    ],
)
def test_what_can_never_match_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem.replace("(", "[(]")):
        SafetyFilter(**options)


def test_characters_of_regular_expressions_may_be_meant():
    assert is_blocked("python -c 'import os; os.fork()'", blocked_patterns=["python -c *fork[(][)]*"])
    assert is_blocked("g++ .x", blocked_patterns=["g++ .*"])


@pytest.mark.parametrize(
    "text",
    [
        "$(",
        "`a ",
        "sudo ",
        "x",
        '"$(`',
        "<<A\n",
        "eval ",
        '"\\',
        "(",
        "'",
        "$'\\",
        "echo a | sh | ",
        "sh <<< ",
        "watch ",
        "find -exec ",
    ],
)
def test_a_long_command_is_read_in_time_in_proportion_to_it(text):
    began = time.monotonic()
    is_blocked(text * (200_000 // len(text)))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("successes", "goes_on"),
    [
        ([True, True], True),
        ([True, True, None], True),
        ([True, True, True], False),
        ([True, True, False], True),
        ([True, True, False, True, True], False),
        ([False] * 9, True),
        ([False] * 10, False),
    ],
)
def test_the_manager_stops_when_an_environment_is_solved_or_has_had_enough(successes, goes_on):
    graded = [success for success in successes if success is not None]
    context = PluginContext({"rollout_stats": {"graded": len(graded), "successful": sum(graded)}})
    assert asyncio.run(PerformanceRolloutManager().should_continue_rollout(context)) is goes_on


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"success_threshold": "x"}, "success_threshold must be a number above 0 and at most 1, not 'x'"),
        ({"success_threshold": True}, "success_threshold must be a number"),
        ({"success_threshold": 0}, "above 0 and at most 1, not 0"),
        ({"min_episodes": 2.5}, "min_episodes must be a whole number of at least 1, not 2.5"),
        ({"max_episodes": 0}, "max_episodes must be a whole number of at least 1, not 0"),
        ({"max_episodes": 2}, "min_episodes .3. must not be above max_episodes .2."),
    ],
)
def test_the_managers_settings_are_checked(settings, problem):
    with pytest.raises(ValueError, match=problem):
        PerformanceRolloutManager(**settings)


def test_the_analyzer_counts_actions_and_errors_and_names_the_slowest_steps():
    analysis = asyncio.run(TrajectoryAnalyzer().analyze_trajectory(rich()))
    assert analysis["actions"] == {"write_file": 1, "execute_command": 1}
    assert analysis["errors"] == {"failed": 1}
    assert [step["step"] for step in analysis["slowest_steps"]] == [0, 1]


def test_a_stopped_environment_starts_nothing_more_not_even_a_retry():
    run_file = config().model_copy(
        update={"episode_control_config": config().episode_control_config.model_copy(update={"max_episodes": 3})}
    )
    schedule = Schedule(run_file, "r")
    first, second = schedule.next(), schedule.next()
    schedule.stop_environment("calc")
    lost = {"status": "failed", "terminated_reason": "environment_error", "retryable": True}
    schedule.record(RolloutSummary(spec=first, **lost))
    schedule.record(RolloutSummary(spec=second, status="completed", terminated_reason="completed", success=True))
    (progress,) = schedule.progress()
    assert schedule.next() is None
    assert (progress.graded, progress.skipped, progress.failed) == (1, 2, 0)
    assert schedule.finished


def test_a_manager_may_take_retries_away():
    schedule = Schedule(config(), "r")
    schedule.set_max_retries("calc", 0)
    lost = {"status": "failed", "terminated_reason": "environment_error", "retryable": True}
    schedule.record(RolloutSummary(spec=schedule.next(), **lost))
    assert schedule.progress()[0].failed == 1
