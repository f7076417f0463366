"""The runs that are shown, by the names under which the page knows them.

Guarantees: an id is looked up among what is there, never joined to a path; numbers are worked out once per change.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from urllib.parse import quote, urlencode

from realwork.analysis.index import RunIndex, run_indexes
from realwork.analysis.listing import Asked, Listing
from realwork.analysis.overview import EnvironmentOverview, Group, Overview, environments, overview
from realwork.analysis.search import TextSearch
from realwork.errors import InputError, StoreError


class Run:
    """One run.

    Attributes:
        key: what stands for it in addresses: the name of its directory, with a number where two have the same.
        index: its attempts.
        problem: why it could not be read when that was last tried, else null.
    """

    def __init__(self, key: str, index: RunIndex) -> None:
        self.key = key
        self.index = index
        self.problem: str | None = None
        self._search = TextSearch(index)
        self._counting = Lock()
        self._numbers: tuple[str, Overview, list[EnvironmentOverview]] | None = None

    @property
    def name(self) -> str:
        return self.key

    @property
    def version(self) -> str:
        return self.index.version

    @property
    def is_played(self) -> bool:
        return self.index.is_played

    def refresh(self) -> None:
        """Read what is new, or find out why that is impossible."""
        try:
            self.index.refresh()
        except StoreError as error:
            self.problem = str(error)
        else:
            self.problem = None

    def address(self, view: str = "", **query: object) -> str:
        """Where a view of the run is found; what is empty stays out of the query."""
        path = f"/runs/{quote(self.key, safe='')}{'/' if view else ''}{view}"
        given = {name: value for name, value in query.items() if value not in ("", None)}
        return f"{path}?{urlencode(given)}" if given else path

    def overview(self) -> Overview:
        """Its numbers."""
        return self._known()[1]

    def environments(self) -> list[EnvironmentOverview]:
        """Its environments with their groups."""
        return self._known()[2]

    def group(self, environment_id: str, group_id: str) -> Group | None:
        """A group of an environment, null if it has none of that id."""
        groups = (each.groups for each in self.environments() if each.environment_id == environment_id)
        return next((group for some in groups for group in some if group.group_id == group_id), None)

    def listing(self, asked: Asked) -> Listing:
        """The attempts that are asked for.

        Raises:
            InputError: what was asked for cannot be understood.
        """
        return Listing(self.index, asked, self._search.ids(asked.text) if asked.text else None)

    def _known(self) -> tuple[str, Overview, list[EnvironmentOverview]]:
        with self._counting:
            version = self.index.version
            if self._numbers is None or self._numbers[0] != version:
                by_environment = environments(self.index)
                self._numbers = version, overview(self.index, by_environment), by_environment
            return self._numbers


class Runs:
    """Every run in some directories; those that begin later join them.

    Raises:
        InputError: a directory holds no run.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories
        self._runs: dict[str, Run] = {}
        self._access = Lock()
        self._find()

    def all(self) -> list[Run]:
        """The runs in the order of their names, up to date; one that cannot be read has a problem.

        Raises:
            InputError: there is none any more.
        """
        with self._access:
            self._find()
            runs = sorted(self._runs.values(), key=lambda run: run.key)
        for run in runs:
            run.refresh()
        return runs

    def get(self, key: str) -> Run | None:
        """The run of that name, up to date; null if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        with self._access:
            if key not in self._runs or not self._runs[key].index.directory.is_dir():
                self._find()
            run = self._runs.get(key)
        if run is not None:
            run.index.refresh()
        return run

    def _find(self) -> None:
        self._runs = {key: run for key, run in self._runs.items() if run.index.directory.is_dir()}
        known = {run.index.directory for run in self._runs.values()}
        try:
            found = run_indexes(self._directories)
        except InputError:
            if not self._runs:
                raise
            return
        for index in found:
            if index.directory in known:
                continue
            key, number = index.name, 1
            while key in self._runs:
                number += 1
                key = f"{index.name}~{number}"
            self._runs[key] = Run(key, index)
