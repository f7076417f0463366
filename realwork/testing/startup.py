"""What Python imports first beside the witness: it loads the witness before any code but the image's own can run.

It is never imported here, and works with any Python 3. Later, Python looks for modules in the working directory before
it looks among its own, and whatever stands there would run in the same process before pytest has loaded a single
plugin. Where this fails, or a script of the user's begins pytest, pytest itself loads the witness.
"""

import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is slow to load
PYTEST = re.compile(r"(pytest|py\.test)(-?3(\.\d+)?)?")
WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def _words() -> "list[str]":
    """The words of this process's command; Python keeps them itself since 3.10."""
    if hasattr(sys, "orig_argv"):
        return sys.orig_argv
    with open("/proc/self/cmdline") as file:  # noqa: PTH123
        return file.read().split("\0")[:-1]


def _runs_pytest(words: "list[str]") -> bool:
    """Whether Python was begun with these `words`, its own options first, to run pytest."""
    left = list(words)
    while left:
        word = left.pop(0)
        if word in WITH_VALUE:
            del left[:1]
        elif re.match("-[a-zA-Z]*m", word):
            program = word.partition("m")[2] or "".join(left[:1])
            return _is_pytest(program, left)
        elif re.match("-[a-zA-Z]*c", word):
            return False
        elif word[:1] != "-":
            program = os.path.basename(word)  # noqa: PTH119
            return _is_pytest(program, left)
    return False


def _is_pytest(program: str, words: "list[str]") -> bool:
    """Whether the program, or module, runs pytest with these `words`."""
    covered = [after for word, after in zip(words, words[1:]) if word == "-m"]  # noqa: B905, RUF007 - for old Pythons
    return bool(PYTEST.fullmatch(program)) or (program == "coverage" and any(map(PYTEST.fullmatch, covered)))


def _load_witness() -> None:
    if not _runs_pytest(_words()[1:]):
        return
    import_module("runpy")
    for name in os.listdir(HERE):  # noqa: PTH208
        if name.startswith("witness_") and name.endswith(".py"):
            import_module(name[:-3])


def _be_the_image_s_own() -> None:
    """Run the module of the same name that would have been imported."""
    spec = PathFinder.find_spec(__name__, [path for path in sys.path if os.path.abspath(path) != HERE])  # noqa: PTH100
    if spec is None or spec.loader is None:
        return
    module = sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(module)


with suppress(Exception):  # pytest will load it, or say why it cannot
    _load_witness()
_be_the_image_s_own()
