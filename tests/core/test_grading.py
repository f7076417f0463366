"""How the tests of an environment are run in a sandbox."""

import asyncio

from realwork.config import EnvironmentConfig, GradingConfig
from realwork.grading import Grading, grade
from realwork.sandbox.base import CommandResult
from realwork.sandbox.memory import open_memory


def test_every_test_runs_apart_from_the_commands_of_the_agent():
    environment = EnvironmentConfig(id="e", docker_image="i", prompt="p", unit_tests=["first", "second"])

    async def scenario():
        async with open_memory({"first": CommandResult(exit_code=0)}) as sandbox:
            grading = Grading(environment=environment, config=GradingConfig(mode="same"), test_timeout_s=5)
            found = await grade(sandbox, grading, open_memory)
            return found.reward, sandbox.apart

    assert asyncio.run(scenario()) == (0.5, ["first", "second"])
