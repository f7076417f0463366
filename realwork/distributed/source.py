"""What Ray Data reads from: tables that a function yields in a task."""

from collections.abc import Callable, Iterable
from typing import Any

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

Read = Callable[[], Iterable[Any]]


class TableSource(Datasource):
    """Tables that `read` yields, in one task, one block each."""

    def __init__(self, name: str, read: Read) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._read = read

    def get_name(self) -> str:
        """See `Datasource`."""
        return self._name

    def estimate_inmemory_data_size(self) -> int | None:
        """See `Datasource`: nobody knows beforehand."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """See `Datasource`."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._read, unknown)]
