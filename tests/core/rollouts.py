"""Plays one rollout in memory: a scripted model, scripted answers of the sandbox, no engine, no Ray."""

import asyncio
from contextlib import asynccontextmanager

from realwork.config import RunConfig
from realwork.environment import PackedFolder, prepare
from realwork.model.scripted import ScriptedCall, ScriptedModel, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import run_rollout
from realwork.sandbox.base import CommandResult
from realwork.sandbox.cpu_slots import NoSlots
from realwork.sandbox.memory import MemorySandbox
from realwork.types import Reply, RolloutSpec

OK = CommandResult(exit_code=0)
FAILED = CommandResult(exit_code=1, stdout=b"1 failed")
SPEC = RolloutSpec(run_id="r", environment_id="e", sample_index=0, seed=7)


def call(name, **arguments):
    return ScriptedCall(name=name, arguments=arguments)


def run(command, **arguments):
    return ScriptedReply(tool_calls=(call("execute_command", command=command, **arguments),))


def calls(*given):
    return ScriptedReply(tool_calls=given)


def says(text):
    return ScriptedReply(content=text)


class ListedModel(ScriptedModel):
    """Gives ready replies or raises errors, in order, then marks done; keeps what it was asked."""

    def __init__(self, *answers):
        super().__init__("listed", (), "e")
        self.answers = list(answers)
        self.asked = []

    async def complete(self, messages, *, deadline_s) -> Reply:
        self.asked.append(list(messages))
        if not self.answers:
            return await super().complete(messages, deadline_s=deadline_s)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FindsNothing:
    """A sandbox in which `find` finds nothing."""

    async def execute(self, command, **options):
        return OK if command.startswith("find ") else await super().execute(command, **options)


class MemoryBackends:
    """Memory sandboxes and one model, for one rollout: `sandbox` is the agent's, `fresh` that of the tests."""

    def __init__(self, model, answers=None, *, opening=None, sandbox=MemorySandbox, folders=(), slots=None):
        self.folders = folders
        self.cpu_slots = slots or NoSlots()
        self.sandbox = sandbox(answers)
        self.fresh = type("Fresh", (FindsNothing, sandbox), {})(answers)
        self.unopened = [self.fresh, self.sandbox]
        self.model = model
        self.opening = opening
        self.closed = False

    async def prepare(self, spec, environment):
        return not environment.init_commands

    def slots(self):
        return self.cpu_slots

    async def has_snapshot(self, snapshot_id):
        return snapshot_id in self.sandbox.snapshots

    @asynccontextmanager
    async def open_sandbox(self, spec, environment):
        if self.opening:
            raise self.opening
        try:
            sandbox = self.unopened.pop()
            await prepare(sandbox, environment, self.folders, 60.0)
            yield sandbox
        finally:
            self.closed = True

    @asynccontextmanager
    async def open_model(self, spec):
        yield self.model


def settings(*, unit_tests=("check",), folders=(), environment=None, **sections):
    config = RunConfig.model_validate(
        {
            "environments": [
                {"id": "e", "docker_image": "i", "prompt": "the task", "unit_tests": list(unit_tests)}
                | (environment or {})
            ],
            "rollout_config": {},
            "template_prompt": "the system",
        }
        | sections
    )
    packed = tuple(PackedFolder(name=name, content=archive) for name, archive in folders)
    return RolloutSettings(config=config, folders={"e": packed})


def play(
    replies,
    answers=None,
    *,
    model=None,
    hooks=None,
    opening=None,
    on_steps=None,
    sandbox=MemorySandbox,
    slots=None,
    **given,
):
    """The trajectory of one rollout, and the backends it was played with."""
    model = model or ScriptedModel("scripted", tuple(replies), "e")
    shared = settings(**given)
    answers = {"check": OK} | (answers or {})
    folders = shared.folders["e"]
    backends = MemoryBackends(model, answers, opening=opening, sandbox=sandbox, folders=folders, slots=slots)
    trajectory = asyncio.run(run_rollout(SPEC, shared, backends, hooks or NoHooks(), on_steps=on_steps))
    return trajectory, backends
