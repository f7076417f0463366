"""The user's own modules: which of those that are imported they are, and when an import has to be done again.

An installed package is nobody's own: other nodes have it too.
"""

import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


def own_modules(places: Sequence[Path]) -> dict[str, Path]:
    """The files of the imported modules that are the user's and lie below one of `places`, by their names."""
    installed = [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]
    return {
        name: Path(file)
        for name, module in list(sys.modules.items())
        if (file := _file(name, module))
        and not file.startswith(tuple(f"{place}/" for place in installed))
        and not any(f"/{part}/" in file for part in ("site-packages", "dist-packages"))
        and any(map(Path(file).is_relative_to, places))
    }


def _file(name: str, module: Any) -> str | None:
    """The file of a module that is not realwork's, null where there is none."""
    if not isinstance(module, ModuleType) or name.partition(".")[0] in ("realwork", "__main__", "__mp_main__"):
        return None
    file = vars(module).get("__file__")
    return file if isinstance(file, str) and vars(module).get("__name__") == name else None


def place_of(name: str) -> Path | None:
    """The folder from which the user's own module `name` was imported, null if it is no such module."""
    file = own_modules([Path("/")]).get(name)
    return None if file is None else file.parents[name.count(".") + (file.name == "__init__.py")]


def forget_replaced(places: Sequence[Path]) -> None:
    """Forget what was imported from elsewhere under a name that, with `places` first in the path, means a file there.

    Who has imported such a module keeps it; whoever imports the name from now on gets the other.
    """
    replaced: set[str] = set()
    for name, file in own_modules([Path("/")]).items():
        found = _found(name)
        origin = Path(found.origin) if found is not None and found.has_location and found.origin else file
        if origin != file and any(map(origin.is_relative_to, places)):
            replaced.add(name.partition(".")[0])
    for name in list(sys.modules):
        if name.partition(".")[0] in replaced:
            del sys.modules[name]


def _found(name: str) -> ModuleSpec | None:
    """Where an import of `name` would look if nothing were imported yet."""
    found: ModuleSpec | None = None
    path: Sequence[str] | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:count]), path)
        if found is None:
            return None
        path = found.submodule_search_locations
    return found
