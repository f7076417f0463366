"""What an endpoint's refusal means. Pure but for the clock that a date in a header is compared with.

Guarantees: a refusal of every rollout, a history that is too long and a failure that may pass are told apart, whether
they come with a status of their own or in a body under 200.
"""

import contextlib
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from realwork.errors import ContextExceeded, ModelError, ModelRefused
from realwork.model.tokens import REQUEST

READ_CHARACTERS = 4000
"""So much of a body is looked at."""
HARMLESS = ("seed", *REQUEST)
"""Parameters that change nothing of what the policy is: left out as soon as an error is about them."""
OPTIONAL = ("temperature", *HARMLESS)
_REFUSED_EVER = (401, 402, 403, 404)
_REFUSING = re.compile(
    r"unrecogni[sz]ed|unsupported|unknown|unexpected|not support|not permitted|not allowed|extra|not available"
    r"|cannot be used|not implemented|not enabled"
)
_CONTEXT_PHRASES = (
    "context_length_exceeded",
    "context length",
    "context size",
    "context window",
    "maximum context",
    "prompt is too long",
    "too many tokens",
    "input is too long",
)


def failure(status: int, said: str, message: str, *, retry_after_s: float | None = None) -> ModelError:
    """The error of an answer of `status` whose body says `said`."""
    said = said[:READ_CHARACTERS].lower()
    if status == 413 or (status in (200, 400) and any(phrase in said for phrase in _CONTEXT_PHRASES)):
        return ContextExceeded(message, status=status)
    if status in _REFUSED_EVER or (status == 429 and "insufficient_quota" in said):
        return ModelRefused(message, status=status)
    return ModelError(message, status=status, retry_after_s=retry_after_s)


def is_refused(name: str, parameter: str | None, said: str) -> bool:
    """Whether an error about `parameter`, null where it names none, that says `said` refuses the one called `name`."""
    if parameter == name and name in HARMLESS:
        return True
    said = said[:READ_CHARACTERS].lower()
    found = re.search(rf"(?<![\w.]){name}(?!\w|\.\w)", said)
    if parameter not in (None, name) or (found is None and parameter is None):
        return False
    near = said if found is None else said[max(0, found.start() - 80) : found.end() + 80]
    return bool(_REFUSING.search(near))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of the `retry-after-ms` or `retry-after` header (seconds or a date), null without a usable one."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            wait_s = float(headers[name]) * unit_s
            return max(0.0, wait_s) if math.isfinite(wait_s) else None
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None
