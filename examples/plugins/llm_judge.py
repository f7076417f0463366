"""A second reward: a model reads what the agent did and gives it a mark from 0 to 10.

Config: `base_url` and `model` of an OpenAI-compatible endpoint; `key_variable`, the environment variable with its key.
"""

import json
import os
import re
from typing import Any

from openai import AsyncOpenAI

from realwork.plugins import EpisodeEvaluatorPlugin, EpisodeResult, PluginHookType
from realwork.types import Trajectory

QUESTION = (
    "An engineer was given a task and typed the commands below. Mark how clean and direct the way to the solution was, "
    "from 0 (aimless) to 10 (nothing to leave out). Answer with the number alone."
)
LONGEST = 8000


class LlmJudge(EpisodeEvaluatorPlugin):
    version = "1.0.0"
    name = "llm_judge"
    supported_hooks = [PluginHookType.POST_TEST]

    def __init__(self, base_url: str, model: str, key_variable: str = "JUDGE_API_KEY") -> None:
        self._base_url = base_url
        self._model = model
        self._key_variable = key_variable

    async def self_check(self) -> str | None:
        if self._key_variable not in os.environ:
            return f"the environment variable {self._key_variable} is not set"
        return None

    async def evaluate_episode(self, episode_result: EpisodeResult, trajectory: Trajectory) -> dict[str, Any]:
        calls = [call.function for message in trajectory.messages for call in message.tool_calls]
        told = json.dumps([[call.name, call.arguments] for call in calls], ensure_ascii=False)[-LONGEST:]
        task = next((message.content or "" for message in trajectory.messages if message.role == "user"), "")
        messages = [
            {"role": "system", "content": QUESTION},
            {"role": "user", "content": f"Task: {task}\n\nCommands: {told}"},
        ]
        async with AsyncOpenAI(base_url=self._base_url, api_key=os.environ[self._key_variable]) as client:
            reply = await client.chat.completions.create(model=self._model, messages=messages, temperature=0)
        said = reply.choices[0].message.content or ""
        mark = re.search(r"\d+(\.\d+)?", said)
        if mark is None:
            raise ValueError(f"the judge gave no mark but said: {said[:200]}")
        return {"directness": min(float(mark[0]), 10.0) / 10}
