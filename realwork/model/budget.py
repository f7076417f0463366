"""How fast and how much a run may ask of its endpoint. Pure: times are given, in seconds of one clock.

Guarantees: what is counted twice counts once; a budget that is not in the run file bounds nothing; one that nothing
can be counted for ends the run as one that is used up does.
"""

from realwork.config import LlmConfig
from realwork.types import Record, Usage

FIRST_ESTIMATE = 1000
"""Tokens that a request is taken for, before a reply has told."""
UNTOLD_REPLIES = 3
"""So many replies, and none that tells what it used, say that none will."""


class Used(Record):
    """What replies have used, as far as that is told: `uncounted` replies told no tokens, `unpriced` ones no cost."""

    replies: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    uncounted: int = 0
    unpriced: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(**{name: getattr(self, name) + getattr(other, name) for name in Used.model_fields})

    @property
    def likely_tokens(self) -> float:
        """The tokens, those of replies that told none estimated by those of the others."""
        return _estimated(self.tokens, self.replies, self.uncounted)

    @property
    def likely_cost_usd(self) -> float:
        """The cost, that of replies that told none estimated by that of the others."""
        return _estimated(self.cost_usd, self.replies, self.unpriced)


def _estimated(told: float, replies: int, untold: int) -> float:
    return told * replies / (replies - untold) if replies > untold else told


def used_by(usage: Usage) -> Used:
    """What one reply has used."""
    tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    return Used(
        replies=1,
        tokens=tokens,
        cost_usd=usage.cost_usd or 0.0,
        uncounted=int(not tokens),
        unpriced=int(usage.cost_usd is None),
    )


class Pace:
    """At most `per_minute` of something, evenly spread; null: no bound."""

    def __init__(self, per_minute: int | None) -> None:
        self._each_s = 60.0 / per_minute if per_minute else 0.0
        self._free_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until more may be taken."""
        return max(0.0, self._free_at - now)

    def reserve(self, now: float, amount: float) -> None:
        """Take `amount` as soon as it may be."""
        self._free_at = max(now, self._free_at) + amount * self._each_s

    def correct(self, amount: float) -> None:
        """Take `amount` more than was reserved, or less if it is negative."""
        self._free_at += amount * self._each_s


class Budget:
    """The budgets of a run, of which `before` was used up by an earlier start."""

    def __init__(self, config: LlmConfig, before: Used) -> None:
        self._config = config
        self._requests = Pace(config.requests_per_minute)
        self._tokens = Pace(config.tokens_per_minute)
        self._before = before
        self._used: dict[str, Used] = {}
        self._estimate = float(FIRST_ESTIMATE)
        self._open_requests = 0
        self._open_tokens = 0.0

    @property
    def used(self) -> Used:
        return sum(self._used.values(), self._before)

    def reserve(self, now: float, *, within_s: float) -> float:
        """Seconds to wait before the next request; nothing is taken for one that would have to wait for `within_s`."""
        wait_s = max(self._requests.wait_s(now), self._tokens.wait_s(now))
        if wait_s < within_s:
            self._requests.reserve(now, 1)
            self._tokens.reserve(now, self._estimate)
            self._open_requests += 1
            self._open_tokens += self._estimate
        return wait_s

    def count(self, client: str, used: Used) -> None:
        """Take note of all that `client` has used so far; an older note that comes late changes nothing."""
        known = self._used.get(client, Used())
        if used.replies <= known.replies:
            return
        counted = (used.replies - used.uncounted) - (known.replies - known.uncounted)
        self._tokens.correct(used.tokens - known.tokens - self._reserved(counted))
        self._used[client] = used
        here = sum(self._used.values(), Used())
        if here.tokens:
            self._estimate = here.likely_tokens / here.replies

    def _reserved(self, replies: int) -> float:
        """What was taken for so many of the requests that are open, which they are no more."""
        closed = min(replies, self._open_requests)
        tokens = closed * self._open_tokens / self._open_requests if closed else 0.0
        self._open_requests -= closed
        self._open_tokens -= tokens
        return tokens

    def spent(self) -> str | None:
        """Which budget is used up or cannot be kept, as the start of a sentence, null when none is."""
        used, config = self.used, self._config
        here = sum(self._used.values(), Used())
        tokens, cost_usd = config.max_run_tokens, config.max_run_cost_usd
        if tokens is not None and used.likely_tokens >= tokens:
            return f"llm_config.max_run_tokens ({tokens:,}) is used up: {used.likely_tokens:,.0f} tokens"
        if cost_usd is not None and used.likely_cost_usd >= cost_usd:
            return f"llm_config.max_run_cost_usd ({cost_usd:g}) is used up: {used.likely_cost_usd:.2f} USD"
        if tokens is not None and here.replies == here.uncounted >= UNTOLD_REPLIES:
            return "llm_config.max_run_tokens cannot be kept: the endpoint tells no tokens"
        if cost_usd is not None and here.replies == here.unpriced >= UNTOLD_REPLIES:
            return (
                "llm_config.max_run_cost_usd cannot be kept: the endpoint tells no cost, and llm_config.prices has "
                "none for its model"
            )
        return None


def has_pace(config: LlmConfig) -> bool:
    """Whether requests have to wait for each other."""
    return config.requests_per_minute is not None or config.tokens_per_minute is not None


def has_limit(config: LlmConfig) -> bool:
    """Whether the run has a budget that can be used up."""
    return config.max_run_tokens is not None or config.max_run_cost_usd is not None
