"""Token ids and log-probabilities as vLLM and SGLang tell them. Pure; nothing is ever tokenised here.

Guarantees: the ids of a completion are whole, as many as its log-probabilities, which are finite, or there are none.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from realwork.types import StepTokens, TokenIds

REQUEST: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": 0,
    "return_token_ids": True,
    "return_prompt_token_ids": True,
    "return_meta_info": True,
}
"""What is asked for: the first two by both, the third by vLLM, the others by SGLang; each passes over the other's."""
PUBLIC_APIS = ("openrouter.ai", "openai.com", "anthropic.com", "googleapis.com", "azure.com", "mistral.ai", "groq.com")
"""Hosts that tell no token ids and may refuse to be asked."""


def tells_none(host: str) -> bool:
    """Whether `host` belongs to an API that is known to tell no token ids."""
    name = host.partition(":")[0].lower()
    return any(name == known or name.endswith(f".{known}") for known in PUBLIC_APIS)


def read_tokens(completion: Mapping[str, Any], choice: Mapping[str, Any]) -> TokenIds | None:
    """The ids in the body of a completion and its choice, null where they are not whole."""
    prompt = _ids(choice.get("prompt_token_ids")) or _ids(completion.get("prompt_token_ids"))
    written = _ids(choice.get("token_ids"))
    logprobs = _vllm_logprobs(choice) or _sglang_logprobs(choice)
    if not prompt or not written or logprobs is None or len(logprobs) != len(written):
        return None
    return TokenIds(prompt=prompt, completion=written, logprobs=logprobs)


def _ids(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(one) is int and 0 <= one < 1 << 31 for one in value):
        return None
    return tuple(value)


def _vllm_logprobs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return None
    return _logprobs([one.get("logprob") if isinstance(one, dict) else None for one in content])


def _sglang_logprobs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    told = choice.get("meta_info")
    content = told.get("output_token_logprobs") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return None
    return _logprobs([one[0] if isinstance(one, list) and one else None for one in content])


def _logprobs(values: Sequence[Any]) -> tuple[float, ...] | None:
    if not values or not all(type(one) in (int, float) for one in values):
        return None
    try:
        kept = array("f", values)
    except OverflowError:
        return None
    return tuple(kept) if all(map(math.isfinite, kept)) else None


def step_tokens(before: Sequence[int], tokens: TokenIds) -> StepTokens:
    """`tokens` without what their prompt shares with `before`, the prompt and completion of the step before."""
    known = tuple(before)
    shared = len(known)
    if tokens.prompt[:shared] != known:
        pairs = enumerate(zip(known, tokens.prompt, strict=False))
        shared = next((at for at, (old, new) in pairs if old != new), len(tokens.prompt))
    return StepTokens(
        prefix_len=shared, prompt=tokens.prompt[shared:], completion=tokens.completion, logprobs=tokens.logprobs
    )


def whole(before: Sequence[int], tokens: StepTokens) -> tuple[int, ...]:
    """The prompt and completion of a step, `before` those of the step before."""
    return (*before[: tokens.prefix_len], *tokens.prompt, *tokens.completion)
