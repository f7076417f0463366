"""The flags that override the run file: a flag given wins, a flag not given changes nothing."""

from typing import Annotated

import typer

LLM = "Model (override llm_config of the run file)"

LlmModel = Annotated[
    str | None, typer.Option(help="The endpoint's name for the model, or scripted:FILE.", rich_help_panel=LLM)
]
LlmApiKey = Annotated[
    str | None,
    typer.Option(
        help="The key, which others on this machine can then read; better set OPENROUTER_API_KEY or OPENAI_API_KEY.",
        rich_help_panel=LLM,
    ),
]
LlmBaseUrl = Annotated[str | None, typer.Option(help="An OpenAI-compatible API, up to /v1.", rich_help_panel=LLM)]
LlmTemperature = Annotated[float | None, typer.Option(help="Sampling temperature.", rich_help_panel=LLM)]
LlmMaxTokens = Annotated[int | None, typer.Option(help="Most tokens of one reply.", rich_help_panel=LLM)]
LlmTimeout = Annotated[float | None, typer.Option(help="Seconds one request may take.", rich_help_panel=LLM)]
LlmCaching = Annotated[
    bool | None,
    typer.Option(
        "--llm-enable-caching/--llm-disable-caching",
        help="Accepted, without effect: nothing is cached.",
        rich_help_panel=LLM,
    ),
]
LlmCacheSize = Annotated[int | None, typer.Option(help="Accepted, without effect.", rich_help_panel=LLM)]
LlmMaxContextMessages = Annotated[
    int | None, typer.Option(help="Most messages sent to the model.", rich_help_panel=LLM)
]
LlmMaxOutputLength = Annotated[
    int | None, typer.Option(help="Characters of an observation that the model sees.", rich_help_panel=LLM)
]
LlmDisableTokenTracking = Annotated[
    bool, typer.Option("--llm-disable-token-tracking", help="Leave token counts out of the rows.", rich_help_panel=LLM)
]
LlmDisableHighUsageWarnings = Annotated[
    bool,
    typer.Option(
        "--llm-disable-high-usage-warnings", help="No warning about a rollout of many tokens.", rich_help_panel=LLM
    ),
]


def given(**values: object) -> dict[str, object]:
    """The values that are not null."""
    return {name: value for name, value in values.items() if value is not None}
