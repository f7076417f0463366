"""The model, its endpoint, and what asking it may cost."""

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from realwork.fields import LARGEST_COUNT, BaseUrls, Count, CountOrZero, Line, Seconds, Section

DEFAULT_MODEL = "anthropic/claude-sonnet-4"
DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
SCRIPTED_PREFIX = "scripted:"
Dollars = Annotated[float, Field(ge=0)]


class Price(Section):
    """What a model costs, in USD per million tokens."""

    input: Dollars
    """Prompt tokens that no cache had."""
    output: Dollars
    """Completion tokens."""
    cached: Dollars | None = None
    """Prompt tokens from a cache; null: as much as the others."""


class LlmConfig(Section):
    """The model and how it is asked."""

    model: Line = DEFAULT_MODEL
    """The endpoint's name for the model, or `scripted:FILE` for the built-in one that plays a file of replies."""
    api_key: SecretStr | None = None
    """A `${NAME}` reference or `file:/path`; a literal key works and draws a warning."""
    base_url: BaseUrls = DEFAULT_BASE_URL
    """Root of an OpenAI-compatible API, up to `/v1`, or a list of them: replicas among which rollouts are spread."""
    organization: Line | None = None
    """Sent as `OpenAI-Organization`."""
    headers: Annotated[dict[Line, Line], Field(repr=False)] = {}
    """Sent with every request; what may be secret is shown nowhere."""
    extra_body: dict[Line, Any] = {}
    """Added to the body of every request; what stands here wins over what realwork would send."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Sampling temperature."""
    max_tokens: Count = 4096
    """Most tokens of one reply."""
    timeout: Seconds = 60.0
    """Seconds one request may take; retries start anew within the episode's time."""
    enable_caching: bool = True
    """Accepted, without effect: nothing is cached, so that no two samples ever share an answer."""
    cache_size: CountOrZero = 100
    """Accepted, without effect."""
    max_context_messages: Annotated[int, Field(ge=4, le=LARGEST_COUNT)] = 50
    """Most messages sent to the model; older pairs of calls and results are left out first."""
    max_context_tokens: Count | None = None
    """Most prompt tokens, by the endpoint's own counts; old observations are cut short, then pairs are left out."""
    max_output_length: Annotated[int, Field(ge=100, le=LARGEST_COUNT)] = 2000
    """Characters of an observation that the model sees."""
    track_token_usage: bool = True
    """Write the endpoint's token counts into steps and totals."""
    warn_high_usage: bool = True
    """Warn once when a rollout passes 100,000 tokens."""

    capture_tokens: Literal["auto", "on", "off"] = "auto"
    """Token ids and log-probabilities of vLLM and SGLang: `on` fails where none come, `auto` goes on without, and does
    not ask the big public APIs."""
    policy_version: Line | None = None
    """Which weights answer: a label for every step."""
    policy_version_header: Line | None = None
    """A header of the endpoint's answers that says it, before the label."""
    policy_version_field: Line | None = None
    """A field of the endpoint's answers that says it, such as `metadata.weight_version`, before the label."""
    prices: dict[Line, Price] = {}
    """By model, for endpoints that do not say themselves what a reply costs."""
    requests_per_minute: Count | None = None
    """Most requests a minute of the whole run, evenly spread."""
    tokens_per_minute: Count | None = None
    """Most prompt and completion tokens a minute of the whole run."""
    max_run_tokens: Count | None = None
    """Prompt and completion tokens of the whole run after which no further environment is begun."""
    max_run_cost_usd: Annotated[float, Field(gt=0)] | None = None
    """What the whole run may cost before no further environment is begun."""

    @property
    def is_scripted(self) -> bool:
        return self.model.startswith(SCRIPTED_PREFIX)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The endpoints among which rollouts are spread, at least one."""
        return (self.base_url,) if isinstance(self.base_url, str) else tuple(self.base_url)
