"""From the run file's entries to plugin objects: imports the modules, finds the classes, constructs them.

Guarantees: every plugin that cannot be used is named with the original error, all of them at
once, before anything runs.
"""

import difflib
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from realwork.config import PluginEntry, RunConfig
from realwork.errors import InputError, RealworkError, blame
from realwork.plugins.annotations import import_with_lazy_annotations
from realwork.plugins.base import NATURAL_HOOKS, BasePlugin, PluginHookType
from realwork.plugins.builtin import BUILTIN, all_entries
from realwork.plugins.calls import explain
from realwork.plugins.modules import forget_replaced, own_modules, place_of
from realwork.text import valid_text

_ASYNC_METHODS = (
    "self_check",
    *("execute", "initialize", "cleanup", "should_continue_rollout", "modify_rollout_strategy", "filter_actions"),
    *("analyze_trajectory", "suggest_improvements", "modify_environment", "evaluate_episode"),
)


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin and the entry of the run file that it comes from.

    Attributes:
        modules: the user's modules that it may have imported, its own among them; empty for a built-in.
        enabled: one that is not is never called, and has no name that others may not have.
    """

    plugin: BasePlugin
    entry: PluginEntry
    builtin: bool = False
    modules: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def hooks(self) -> frozenset[PluginHookType]:
        """The hooks at which it is called: those it names, and the one that its kind answers."""
        supported: object = self.plugin.supported_hooks
        if not isinstance(supported, list | tuple | set | frozenset):
            raise InputError(f"{self.plugin.name}: supported_hooks must be a list of hooks, not {supported!r}")
        unknown = [hook for hook in supported if hook not in list(PluginHookType)]
        if unknown:
            known = ", ".join(PluginHookType)
            raise InputError(
                f"{self.plugin.name}: supported_hooks has {unknown[0]!r}, which is no hook; there are {known}"
            )
        named = set(map(PluginHookType, supported))
        natural = NATURAL_HOOKS.get(self.plugin.plugin_type)
        return frozenset(named if natural is None else {*named, natural})

    @property
    def priority(self) -> int:
        return self.entry.priority if "priority" in self.entry.model_fields_set else int(self.plugin.priority)


def load_plugins(config: RunConfig, *, folder: Path | None = None, with_disabled: bool = False) -> list[LoadedPlugin]:
    """The plugins of `config`, built-ins first; none when plugins are switched off.

    Those that are not enabled are among them only `with_disabled`.
    A module is looked for in `folder` (that of the run file), in the current directory, then where Python looks.

    Raises:
        InputError: with one problem for each plugin that cannot be used.
    """
    loaded: list[LoadedPlugin] = []
    problems: list[str] = []
    with _importable(folder) as places:
        for entry in all_entries(config):
            try:
                with blame(InputError, "cannot be used"):
                    found = [each for each in map(_asked, _load(entry, places)) if each.enabled or with_disabled]
                    _check_names(found, loaded)
                loaded += found
            except SystemExit as error:
                ended = f"its code ends the process when it is loaded (SystemExit: {error.code})"
                problems.append(f"plugin {entry.module}: {ended}")
            except RealworkError as error:
                problems.append(f"plugin {entry.module}: {explain(error)}")
    if problems:
        raise InputError(f"{len(problems)} plugin(s) cannot be used", problems=problems)
    return loaded


def _asked(loaded: LoadedPlugin) -> LoadedPlugin:
    """`loaded`, once it was asked whether it is enabled."""
    with blame(InputError, "it does not say whether it is enabled"):
        return replace(loaded, enabled=bool(loaded.plugin.enabled))


@contextmanager
def _importable(folder: Path | None) -> Iterator[list[Path]]:
    """The folder of the run file and the current one, which come first for imports for the length of the block."""
    before = list(sys.path)
    places = [*([folder.resolve()] if folder is not None else []), Path.cwd()]
    sys.path[:0] = map(str, places)
    importlib.invalidate_caches()
    try:
        forget_replaced(places)
        yield places
    finally:
        sys.path[:] = before


def _load(entry: PluginEntry, places: Sequence[Path]) -> list[LoadedPlugin]:
    if entry.module in BUILTIN:
        return [LoadedPlugin(_construct(BUILTIN[entry.module], entry), entry, builtin=True)]
    _check_module(entry.module)
    kinds = _plugin_classes(_import(entry.module, places))
    found_in = [place_of(name) for name in {entry.module, *(kind.__module__ for kind in kinds)}]
    modules = tuple(sorted(own_modules([*places, *(place for place in found_in if place)])))
    return [LoadedPlugin(_construct(kind, entry), entry, modules=modules) for kind in kinds]


def _check_module(name: str) -> None:
    """Make sure that `name` can be that of a user's module.

    Raises:
        InputError: it is a path, or a name of Python's own.
    """
    parts = [part for part in re.split(r"[/\\]", name.removesuffix(".py")) if part not in ("", ".", "..")]
    if name != ".".join(parts):
        raise InputError(f"that is the path of a file; write the dotted name: {'.'.join(parts)}")
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise InputError(f"'{name.partition('.')[0]}' is a module of Python's own; give yours another name")


def _import(name: str, places: Sequence[Path]) -> ModuleType:
    with blame(InputError, "cannot be imported"):
        try:
            return importlib.import_module(name)
        except NameError as error:
            if sys.version_info >= (3, 14) or error.name not in typing.__all__:
                raise
            return import_with_lazy_annotations(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise InputError(
                f"cannot be imported: {error}. {_meant(name, places)}"
                "Put it beside the run file or into the current folder, or install it"
            ) from None


def _meant(name: str, places: Sequence[Path]) -> str:
    """A question whether a name that is there was meant, empty where none is similar."""
    package, dot, _ = name.rpartition(".")
    there = [path for place in places for path in place.joinpath(*package.split(".")).glob("*")]
    modules = [path.stem for path in there if path.suffix == ".py" or (path / "__init__.py").is_file()]
    near = difflib.get_close_matches(name, [*BUILTIN, *(f"{package}{dot}{module}" for module in modules)], n=1)
    return f"Did you mean '{near[0]}'? " if near else ""


def _plugin_classes(module: ModuleType) -> list[type[BasePlugin]]:
    """The concrete plugin classes in `module`, in its order, without those that it has from realwork."""
    classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, BasePlugin)]
    own = [kind for kind in dict.fromkeys(classes) if kind.__module__.partition(".")[0] != "realwork"]
    if concrete := [kind for kind in own if not inspect.isabstract(kind)]:
        return concrete
    missing = [f"{kind.__name__} does not define {', '.join(sorted(kind.__abstractmethods__))}" for kind in own]
    raise InputError(f"there is no plugin class in the module{': ' if missing else ''}{'; '.join(missing)}")


def _construct(kind: type[BasePlugin], entry: PluginEntry) -> BasePlugin:
    """An instance of `kind`, given the entry's `config` in the way that its constructor takes it."""
    for name in _ASYNC_METHODS:
        if hasattr(kind, name) and not inspect.iscoroutinefunction(getattr(kind, name)):
            raise InputError(f"{kind.__name__}.{name} must be an 'async def'")
    constructor = inspect.signature(kind)
    takes_whole = "config" in constructor.parameters and "config" not in entry.config
    given = {"config": entry.config} if takes_whole else entry.config if constructor.parameters else {}
    _check_arguments(kind, constructor, given)
    with blame(InputError, f"the constructor of {kind.__name__} fails"):
        plugin = kind(**given)
        if not constructor.parameters:
            plugin.config = entry.config
        return plugin


def _check_arguments(kind: type[BasePlugin], constructor: inspect.Signature, given: Mapping[str, object]) -> None:
    try:
        constructor.bind(**given)
    except TypeError as error:
        file = Path(inspect.getfile(kind)).name
        said = f"the constructor of {kind.__name__} in {file} does not fit the entry's config: {error}"
        raise InputError(said) from None


def _check_names(found: Sequence[LoadedPlugin], earlier: Sequence[LoadedPlugin]) -> None:
    """Make sure that what names and orders the plugins can be read.

    Raises:
        InputError: a name is empty or taken.
    """
    taken = {each.plugin.name: each.entry.module for each in earlier if each.enabled}
    for each in found:
        name: object = each.plugin.name
        if not isinstance(name, str) or not name.strip() or name != valid_text(name):
            raise InputError(f"the name of {type(each.plugin).__name__} must be text, not {name!r}")
        if each.enabled and name in taken:
            raise InputError(f"there is another plugin with the name '{name}', in the module {taken[name]}")
        if each.enabled:
            taken[name] = each.entry.module
        with blame(InputError, f"{name}: version, supported_hooks or priority are wrong"):
            _ = str(each.plugin.version), each.hooks, each.priority
