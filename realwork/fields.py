"""What the run file's model is made of: its closed sections, and types of fields that say what they expect.

Messages never hold the value, which may be secret.
"""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

LARGEST_COUNT = 2**31 - 1
LONGEST_S = 1e9


class Section(BaseModel):
    """A closed, frozen section: an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _no_control(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must not contain line breaks or other control characters")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path in the sandbox, beginning with '/'")
    return value


def _variable_name(value: str) -> str:
    if not value or "=" in value or "\0" in value:
        raise ValueError("the name of an environment variable must not be empty or contain '='")
    return value


def _api_root(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL, such as http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://, such as http://127.0.0.1:8000/v1")
    if not host or re.search(r"\s", value):
        raise ValueError("must name a host and hold no spaces, such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment; the key belongs into llm_config.api_key")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ValueError("must end before '/chat/completions', which the client adds itself")
    return value


def _api_roots(value: Any) -> str | list[str]:
    match value:
        case str():
            return _api_root(value)
        case [_, *_] if all(isinstance(each, str) for each in value):
            return [_api_root(each) for each in value]
        case _:
            raise ValueError("must be a URL such as http://127.0.0.1:8000/v1, or a list of them")


Seconds = Annotated[float, Field(gt=0, le=LONGEST_S)]
Amount = Annotated[float, Field(ge=0, le=LARGEST_COUNT, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Text = Annotated[str, AfterValidator(_not_blank), AfterValidator(_no_nul)]
Line = Annotated[Text, AfterValidator(_no_control)]
SandboxPath = Annotated[Line, AfterValidator(_absolute)]
Value = Annotated[str, AfterValidator(_no_nul)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
BaseUrls = Annotated[str | list[str], PlainValidator(_api_roots)]
