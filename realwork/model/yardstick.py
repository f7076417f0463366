"""The bare client of the `openai` package, beside which ours is measured."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import openai

from realwork.config import LlmConfig
from realwork.model.context import to_chat
from realwork.tools import tool_schemas
from realwork.types import Message


@asynccontextmanager
async def bare_client(config: LlmConfig, messages: Sequence[Message]) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """What asks the first replica of `config` for a reply to `messages`, with nothing around the client."""
    chat: Any = to_chat(messages)
    tools: Any = tool_schemas()
    async with openai.AsyncOpenAI(api_key="bench", base_url=config.replicas[0], max_retries=0) as client:

        async def ask() -> object:
            return await client.chat.completions.create(
                model=config.model,
                messages=chat,
                tools=tools,
                temperature=config.temperature,
                max_tokens=config.max_tokens,
                seed=1,
            )

        yield ask
