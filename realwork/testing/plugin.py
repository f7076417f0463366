"""The witness: a pytest plugin that is copied into a sandbox and tells what each test did, under a key of its own.

It is never imported here, and works with Python 3.7 and pytest 6. It changes neither output nor exit code of pytest,
but tests that would run in processes of their own run in this one. The key is read from beside this file as soon as
Python starts, before any code of the agent's is imported, and a new one made of it is left for the next pytest of the
same command. At the end it runs one test that has to fail, in the place of the last one: if that is not reported as
failed, no report can be believed.

What the tests import runs in the same process, and in Python nothing can be kept from it: this tells tampering that is
aimed at pytest, not one that is aimed at this very plugin. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _pytest.runner
import pytest


def _import(*names: str) -> list[Any]:
    """Modules of the standard library, whatever of the same name lies where Python looks first."""
    paths = sys.path[:]
    library = str(Path(os.__file__).parent)
    sys.path[:] = paths[paths.index(library) :] if library in paths else paths
    try:
        return [__import__(name) for name in names]
    finally:
        sys.path[:] = paths


hashlib, hmac, json = _import("hashlib", "hmac", "json")

HERE = Path(__file__).absolute()
FOLDER, NAME = str(HERE.parent), HERE.stem
MOST_CASES = 5000
LONGEST_NAME = 500
LONGEST_MESSAGE = 2000
MOST_TEXT = 1 << 20
"""Characters of all messages."""
_RANKS = ("skipped", "passed", "failed", "error")
_CHILDREN: dict[str, Any] = {
    "numprocesses": None,
    "maxprocesses": None,
    "dist": "no",
    "distload": False,
    "tx": [],
    "forked": False,
    "boxed": False,
}
"""Options of plugins that run tests in other processes, where nothing is seen of them, and how that is turned off."""
_RUN_NOTHING = {"--version", "-V", "-h", "--help", "--markers"}
"""With these pytest ends before its plugins can say anything."""


def _seal() -> Callable[[bytes], str]:
    """Signs with the key, which nothing else refers to."""
    place = HERE.with_name("key")
    key = place.read_bytes()
    place.write_bytes(hashlib.sha256(key).digest())
    return lambda body: str(hmac.new(key, body, hashlib.sha256).hexdigest())


def _hide(name: str, ours: str, separator: str) -> None:
    """Leave a variable as if this plugin were not there."""
    value = os.environ.get(name, "")
    if value == ours:
        del os.environ[name]
    elif value.startswith(ours + separator):
        os.environ[name] = value[len(ours + separator) :]


class Witness:
    """Hears every report; writes one of its own when the session ends."""

    def __init__(self, seal: Callable[[bytes], str]) -> None:
        self._seal = seal
        self._cases: dict[str, list[Any]] = {}
        self._returned: dict[str, bool] = {}
        self._last: Any = None
        self._brought: list[str] = []
        self._has_unittest = False

    def look_at_plugins(self, config: Any) -> None:
        """Note those that were found where an agent could bring them: in an archive, or a folder of libraries."""
        here = Path.cwd()
        for _, distribution in config.pluginmanager.list_plugin_distinfo():
            place = Path(str(distribution.locate_file(""))).resolve()
            is_brought = here in place.parents and Path(sys.prefix) not in place.parents
            if is_brought and (not place.is_dir() or "site-packages" in place.relative_to(here).parts):
                self._brought.append(str(distribution.metadata["name"]))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: Any) -> None:
        self._has_unittest = any(type(item).__name__ == "TestCaseFunction" for item in session.items)
        self._last = session.items[-1] if session.items else None

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        outcome: Any = yield
        self._returned[item.nodeid] = outcome.excinfo is None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome == "failed":
            self._note(report, "failed" if report.when == "call" else "error")
        elif report.outcome == "skipped":
            self._note(report, "skipped")
        elif report.outcome == "passed":
            self._note(report, "passed" if report.when == "call" else "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome in ("failed", "skipped"):
            self._note(report, "error" if report.outcome == "failed" else "skipped")

    def _note(self, report: Any, status: str) -> None:
        """The worst of what is reported of one test counts, but a part that is skipped does not undo a pass."""
        case = self._cases.setdefault(report.nodeid, ["", 0.0, ""])
        case[1] += getattr(report, "duration", 0.0)
        if status and (not case[0] or _RANKS.index(status) > _RANKS.index(case[0])):
            case[0], case[2] = status, "" if status == "passed" else _message(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: Any) -> None:
        cases = [[name, *case] for name, case in self._cases.items() if case[0]]
        for case in cases:
            if case[1] == "passed" and not self._returned.get(case[0]):
                case[1], case[3] = "error", "it was reported as passed, but it did not run to its end"
        counts = {status: sum(case[1] == status for case in cases) for status in _RANKS}
        if len(cases) > MOST_CASES:
            cases = sorted(cases, key=lambda case: case[1] in ("passed", "skipped"))[:MOST_CASES]
        left = MOST_TEXT
        for case in cases:
            case[0], case[3] = _valid(case[0][:LONGEST_NAME]), _valid(case[3][:left])
            left -= len(case[3])
        believed = all(map(_is_reported, _failing(self._last, self._has_unittest))) if self._last else True
        body = json.dumps({"cases": cases, "counts": counts, "believed": believed, "brought": self._brought}).encode()
        HERE.with_name(self._seal(b"name")).write_bytes(self._seal(body).encode() + b"\n" + body)


def _message(report: Any) -> str:
    said = report.longrepr
    if isinstance(said, tuple):
        return str(said[-1])[:LONGEST_MESSAGE]
    return str(getattr(report, "longreprtext", said or ""))[-LONGEST_MESSAGE:]


def _valid(text: str) -> str:
    """`text` without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _failing(last: Any, has_unittest: bool) -> Iterator[Any]:
    """Tests that have to fail, where `last` stands, with neither its fixtures nor its marks."""
    name = getattr(last, "originalname", None) or last.name
    parent = last.getparent(pytest.Module) or last.parent
    makers = [_failing_function, _failing_method] if has_unittest else [_failing_function]
    for make in makers:
        try:
            item = make(parent, name)
        except Exception:  # noqa: BLE001, S112 - a version of pytest that makes its tests otherwise
            continue
        item.fixturenames = []
        item.iter_markers_with_node = lambda name=None: iter(())
        yield item


def _failing_function(parent: Any, name: str) -> Any:
    def fail() -> None:
        raise AssertionError("this test has to fail")

    return pytest.Function.from_parent(parent, name=name, callobj=fail)


def _failing_method(parent: Any, name: str) -> Any:
    import unittest  # noqa: PLC0415 - slow, and seldom needed

    from _pytest.unittest import TestCaseFunction, UnitTestCase  # noqa: PLC0415

    def fail(self: unittest.TestCase) -> None:
        self.assertEqual(1, 2)  # noqa: PT009 - what an agent may have replaced

    kind = type("Tests", (unittest.TestCase,), {name: fail})
    case: Any = UnitTestCase.from_parent(parent, name="Tests", obj=kind)
    case.obj = kind
    return TestCaseFunction.from_parent(case, name=name)


def _is_reported(item: Any) -> bool:
    """Whether the failure of `item` is reported as one; a test that is not even begun says nothing."""
    options = item.config.option
    shows, options.setupshow = getattr(options, "setupshow", False), False
    reports = _pytest.runner.runtestprotocol(item, log=False, nextitem=None)
    options.setupshow = shows
    calls = [report.outcome for report in reports if report.when == "call"]
    return bool(reports) and calls in ([], ["failed"])


def _words() -> list[str]:
    """The words of the command, also before Python has told of them."""
    return list(getattr(sys, "argv", ())) + list(getattr(sys, "orig_argv", ()))


_witness = None if _RUN_NOTHING.intersection(_words()) else Witness(_seal())
sys.path[:] = [path for path in sys.path if path != FOLDER]
_hide("PYTHONPATH", FOLDER, os.pathsep)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Pytest has read its variables, and nothing else runs yet."""
    _hide("PYTEST_ADDOPTS", "-p " + NAME, " ")


@pytest.hookimpl(hookwrapper=True)
def pytest_cmdline_main(config: Any) -> Iterator[None]:
    """Let every test run in this process."""
    for name, value in _CHILDREN.items():
        if hasattr(config.option, name):
            setattr(config.option, name, value)
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: Any) -> None:
    """Begin to hear reports; other processes of the same run are not to look for this plugin."""
    global _witness  # noqa: PLW0603 - it is not to be found here any more
    config.option.plugins = [name for name in config.option.plugins or [] if name != NAME]
    sys.modules.pop(NAME, None)
    if _witness is not None:
        config.pluginmanager.register(_witness)
        _witness.look_at_plugins(config)
        _witness = None
