"""What a rollout says it is doing while it goes on."""

import asyncio

from realwork.activity import LONGEST_DETAIL, Activity
from realwork.plugins.hooks import NoHooks
from realwork.rollout import run_rollout
from realwork.sandbox.memory import MemorySandbox
from tests.core.rollouts import OK, SPEC, ListedModel, MemoryBackends, run, settings
from tests.core.test_rollout import reply_of


class Watched:
    """Notes what the rollout says it is doing whenever it does something."""

    def __init__(self):
        self.steps, self.noted = [], []
        self.activity = Activity(self.steps.append)

    def note(self, *_):
        now = self.activity.now
        self.noted.append((now.phase, now.step, now.detail))


def played(watched, answers):
    class Sandbox(MemorySandbox):
        async def execute(self, command, **options):
            if command in answers:
                watched.note()
            return await super().execute(command, **options)

    class Model(ListedModel):
        async def complete(self, messages, *, deadline_s):
            watched.note()
            return await super().complete(messages, deadline_s=deadline_s)

    class Backends(MemoryBackends):
        def open_sandbox(self, spec, environment):
            watched.note()
            return super().open_sandbox(spec, environment)

        async def prepare(self, spec, environment):
            watched.note()
            return await super().prepare(spec, environment)

    backends = Backends(Model(*(reply_of(run(name)) for name in answers if name != "check")), answers, sandbox=Sandbox)
    return asyncio.run(run_rollout(SPEC, settings(), backends, NoHooks(), activity=watched.activity))


def test_each_phase_of_a_rollout_is_noted_with_its_step_and_command_and_each_step_is_told_of():
    watched = Watched()
    assert watched.activity.now.phase == "waiting"
    trajectory = played(watched, {"ls": OK, "make": OK, "check": OK})
    assert watched.noted == [
        ("preparing", 0, ""),
        ("booting", 0, ""),
        ("asking", 1, ""),
        ("acting", 1, "ls"),
        ("asking", 2, ""),
        ("acting", 2, "make"),
        ("asking", 3, ""),
        ("grading", 0, ""),
        ("grading", 0, ""),
    ]
    assert watched.steps == list(trajectory.steps)


def test_what_is_told_of_a_command_is_short_and_the_time_since_it_began_grows():
    activity = Activity()
    activity.begin("acting", step=3, detail="x" * 10_000)
    first, second = activity.now, activity.now
    assert (first.step, len(first.detail)) == (3, LONGEST_DETAIL)
    assert 0 <= first.seconds <= second.seconds < 5
