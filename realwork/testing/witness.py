"""Places the witness beside pytest for one command, and checks what it says.

Guarantees: a report counts only under the key that was made for this command, which is no longer in the file system
when the code under test is imported, and every pytest that took a key has to have given its report. Code that runs in
the process of pytest and looks for the witness there can still speak in its name.
"""

import hashlib
import hmac
import json
import re
import secrets
import shlex
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from realwork.errors import FileError
from realwork.sandbox.base import Sandbox
from realwork.testing.evidence import MOST_CASES, CaseStatus, Evidence, case
from realwork.text import decode
from realwork.types import Record

MOST_REPORT_BYTES = 8 << 20
MOST_RUNS = 1000
"""Of pytest in one command."""
_SOURCE = Path(__file__).with_name("plugin.py")
_STARTUP = Path(__file__).with_name("startup.py")
_CUT_SHORT = (
    "pytest ended without the report that realwork asks of it: the process was ended from within, "
    "by a test or by what it imports"
)


class _Told(Record):
    """What one pytest told."""

    cases: tuple[tuple[str, CaseStatus, float, str], ...]
    counts: dict[Literal["passed", "failed", "skipped", "error"], int]
    believed: bool
    brought: tuple[str, ...]


class Witness:
    """The witness of one test command.

    Attributes:
        plugin: the name under which pytest knows it.
    """

    def __init__(self) -> None:
        self.plugin = f"witness_{secrets.token_hex(8)}"
        self._key = secrets.token_bytes(32)
        self._folder = f"/tmp/.{secrets.token_hex(8)}"
        self._folder_of_commands = self._folder

    async def enter(self, sandbox: Sandbox, working_directory: str) -> None:
        """Put it into `sandbox`.

        Raises:
            FileError: there is no place for it.
        """
        try:
            await sandbox.write_file(f"{self._folder}/key", self._key)
        except FileError:  # a local sandbox has its working directory only
            name = self._folder.rpartition("/")[2]
            where = await sandbox.execute("pwd", timeout_s=10.0, working_directory=working_directory)
            self._folder = f"{working_directory}/{name}"
            self._folder_of_commands = f"{decode(where.stdout).strip()}/{name}"
            await sandbox.write_file(f"{self._folder}/key", self._key)
        await sandbox.write_file(f"{self._folder}/{self.plugin}.py", _SOURCE.read_bytes())
        await sandbox.write_file(f"{self._folder}/sitecustomize.py", _STARTUP.read_bytes())

    def beside(self, command: str) -> str:
        """`command` with every pytest in it finding the witness, also where it sets the variables that lead there."""
        path, option = shlex.quote(self._folder_of_commands), f"'-p {self.plugin}'"
        command = _prefixed(command, "PYTHONPATH", path, ":")
        command = _prefixed(command, "PYTEST_ADDOPTS", option, "' '")
        return (
            f'PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}"\n'
            f'PYTEST_ADDOPTS={option}"${{PYTEST_ADDOPTS:+ $PYTEST_ADDOPTS}}"\n'
            f"export PYTHONPATH PYTEST_ADDOPTS\n{command}"
        )

    async def leave(self, sandbox: Sandbox) -> Evidence | None:
        """What it has seen, null if pytest never began; nothing of it stays in `sandbox`."""
        try:
            current = await self._read(sandbox, "key")
            keys = [self._key]
            while current != keys[-1] and len(keys) <= MOST_RUNS:
                keys.append(hashlib.sha256(keys[-1]).digest())
            if current != keys[-1]:
                why = f"what watches its tests was tampered with, or more than {MOST_RUNS} pytests ran"
                return Evidence(problem=why)
            told = [await self._told(sandbox, key) for key in keys[:-1]]
        except FileError:
            return Evidence(problem=_CUT_SHORT)
        finally:
            with suppress(FileError):  # a container in which nothing can be removed any more
                await sandbox.remove(self._folder)
        return _together(told) if told else None

    async def _told(self, sandbox: Sandbox, key: bytes) -> _Told | None:
        """What the pytest with that key told, null if its signature is wrong.

        Raises:
            FileError: there is no report.
        """
        content = await self._read(sandbox, _signature(key, b"name"))
        signature, _, body = content.partition(b"\n")
        if not hmac.compare_digest(signature, _signature(key, body).encode()):
            return None
        try:
            return _Told.model_validate(json.loads(body))
        except (ValueError, ValidationError, RecursionError):
            return None

    async def _read(self, sandbox: Sandbox, name: str) -> bytes:
        found = await sandbox.read_file(f"{self._folder}/{name}", limit_bytes=MOST_REPORT_BYTES)
        return found.content


def _signature(key: bytes, body: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _prefixed(command: str, variable: str, ours: str, between: str) -> str:
    """`command` with `ours` in front of every value that it gives to `variable`."""
    found = re.compile(rf"(?<![\w$]){variable}=(\S?)")
    return found.sub(lambda match: f"{variable}={ours}{between + match[1] if match[1] else ''}", command)


def _together(told: list[_Told | None]) -> Evidence:
    reports = [one for one in told if one is not None]
    if len(reports) < len(told):
        return Evidence(problem="the report of its tests was tampered with")
    if not all(one.believed for one in reports):
        return Evidence(problem="a test that has to fail is reported as passed: the test runner was tampered with")
    brought = sorted({name for one in reports for name in one.brought})
    if brought:
        return Evidence(problem=f"pytest took plugins from the work: {', '.join(brought)[:200]}")
    cases = [case(*each) for one in reports for each in one.cases]
    counts = Counter[str]()
    for one in reports:
        counts.update(one.counts)
    return Evidence(
        cases=tuple(cases[:MOST_CASES]),
        passed=counts["passed"],
        failed=counts["failed"] + counts["error"],
        skipped=counts["skipped"],
    )
