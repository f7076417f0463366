"""Imports a module as Python 3.14 does: annotations are not evaluated, so a name that only they use may be missing."""

import __future__

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType


class _LazyLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        flags = __future__.annotations.compiler_flag
        return compile(self.get_data(path), path, "exec", flags=flags, dont_inherit=True)  # type: ignore[no-any-return]


def import_with_lazy_annotations(name: str) -> ModuleType:
    """The module `name`, which is a source file and was not imported yet.

    Raises:
        ImportError: it is no source file; and whatever its code raises.
    """
    found = importlib.util.find_spec(name)
    if found is None or not isinstance(found.loader, SourceFileLoader):
        raise ImportError(f"{name} is no Python file")
    spec = importlib.util.spec_from_loader(name, _LazyLoader(name, found.loader.path))
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
