"""Backends of which it is told how many sandboxes they have open."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from realwork.config import EnvironmentConfig
from realwork.model.base import Model
from realwork.rollout import Backends
from realwork.sandbox.base import Sandbox
from realwork.sandbox.cpu_slots import Slots
from realwork.types import RolloutSpec

if TYPE_CHECKING:
    from realwork.sandbox.prepared import Fetch


class CountedBackends:
    """`backends`, which `tell` how many sandboxes are open whenever that changes."""

    def __init__(self, backends: Backends, tell: Callable[[int], None]) -> None:
        self._backends = backends
        self._tell = tell
        self._open = 0

    @asynccontextmanager
    async def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AsyncIterator[Sandbox]:
        """See `Backends.open_sandbox`."""
        self._change(1)
        try:
            async with self._backends.open_sandbox(spec, environment) as sandbox:
                yield sandbox
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        self._open += by
        self._tell(self._open)

    async def prepare(self, spec: RolloutSpec, environment: EnvironmentConfig, fetch: "Fetch | None" = None) -> bool:
        """See `Backends.prepare`."""
        return await self._backends.prepare(spec, environment, fetch)

    def open_model(self, spec: RolloutSpec) -> AbstractAsyncContextManager[Model]:
        """See `Backends.open_model`."""
        return self._backends.open_model(spec)

    def slots(self) -> Slots:
        """See `Backends.slots`."""
        return self._backends.slots()

    async def has_snapshot(self, snapshot_id: str) -> bool:
        """See `Backends.has_snapshot`."""
        return await self._backends.has_snapshot(snapshot_id)

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """See `Backends.forget_snapshots`."""
        await self._backends.forget_snapshots(spec)
