"""What the engine does not do, as errors of ours.

Guarantees: no exception of the SDK, or of what it is built on, leaves a block of `translated`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from realwork.errors import ImageError, RealworkError, SandboxError, SandboxLost


class NoAnswer(SandboxError):
    """The engine did not answer: what was asked may or may not happen."""


class TooSlow(NoAnswer):
    """The engine did not answer in time; it may do so yet."""


class NameInUse(SandboxError):
    """There is a container of that name already."""


class LoadRefused(SandboxError):
    """The engine did not take an image that it was given whole, or without layers that it was thought to have."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the SDK raises inside the block into an error of ours that begins with `doing`."""
    handled = sys.exception()  # around the block; whatever is raised in it has that as its context
    try:
        yield
    except (APIError, DockerException, RequestException, HTTPError, OSError) as error:
        for cause in _causes(error, but=handled):
            if isinstance(cause, RealworkError):  # of a stream that was being sent
                raise cause from error
        raise _translation(doing, error) from error


def _translation(doing: str, error: Exception) -> SandboxError:
    if isinstance(error, ImageNotFound):
        return ImageError(f"{doing}: {error.explanation}")
    if isinstance(error, APIError):
        return _refusal(error)(f"{doing}: {error.explanation or error}")
    return NoAnswer(f"{doing}: the engine does not answer: {advice(error)}")


def _refusal(error: APIError) -> type[SandboxError]:
    said = str(error.explanation).lower()
    if isinstance(error, NotFound) and ("no such container" in said or "no such exec" in said):
        return SandboxLost
    if error.status_code == 409 and "name" in said and "already in use" in said:
        return NameInUse
    if error.status_code in (409, 500) and ("is not running" in said or "is paused" in said):
        return SandboxLost
    return SandboxError


def advice(error: BaseException) -> str:
    """Why there is no engine and what to do about it."""
    for cause in _causes(error):
        if isinstance(cause, PermissionError):
            return "permission denied; add this user to the group 'docker' and log in again, or run as root"
        if isinstance(cause, FileNotFoundError):
            return "there is no such socket; start the engine, for example with cluster/setup.sh (or make setup)"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there; start the engine, for example with cluster/setup.sh (or make setup)"
    return str(error)


def _causes(error: BaseException, *, but: BaseException | None = None) -> Iterator[BaseException]:
    """The error and what is wrapped in it, by chaining or as an argument; `but` and what that wraps are none of it."""
    waiting, seen = [error], {id(but)}
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = (current.__cause__, current.__context__, *current.args)
        waiting.extend(cause for cause in linked if isinstance(cause, BaseException))
