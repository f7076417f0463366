"""What a Ray call answers, with the failure of the other side as it was raised there."""

from collections.abc import Awaitable
from typing import Any

from ray.exceptions import RayError, RayTaskError

from realwork.errors import NodeError, RealworkError


async def answer(call: Awaitable[Any]) -> Any:
    """The value of `call`.

    Raises:
        RealworkError: as the other side raised it; `NodeError` for a defect there.
        RayError: the other side is gone.
    """
    try:
        return await call
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (RealworkError, RayError)):
            raise cause from None
        raise NodeError(f"{type(cause).__name__}: {cause}") from None
