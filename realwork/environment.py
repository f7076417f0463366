"""A task in an open sandbox: made ready, then one action after the other.

Guarantees: whatever the agent asks for gets exactly one observation; only the sandbox itself can fail
(`SandboxError`), never an action.
"""

import hashlib
import pickle
import posixpath
import shlex
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import ConfigDict

from realwork.config import EnvironmentConfig, TimeoutConfig
from realwork.errors import FileError, NoSlot, PrepareError
from realwork.faultpoints import pass_through
from realwork.sandbox.base import DISK_FULL, OUT_OF_MEMORY, CommandResult, Sandbox
from realwork.sandbox.cpu_slots import NoSlots, Slots
from realwork.text import decode, shorten, tail
from realwork.types import (
    Action,
    CallStatus,
    CommandAction,
    DoneAction,
    InvalidAction,
    Observation,
    ReadAction,
    Record,
    ToolCall,
    WriteAction,
)


class PackedFolder(Record):
    """A folder of the user's as a tar archive whose entries begin with `name`.

    Guarantees: processes of one machine that get it from shared memory hold no copy of their own.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    content: bytes | memoryview

    @property
    def archive(self) -> bytes:
        return bytes(self.content)

    @cached_property
    def digest(self) -> str:
        """What tells this folder's content from every other."""
        return hashlib.sha256(self.content).hexdigest()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if protocol < 5:
            return super().__reduce_ex__(protocol)
        return _packed, (self.name, pickle.PickleBuffer(self.content))


def _packed(name: str, content: bytes | memoryview) -> PackedFolder:
    return PackedFolder(name=name, content=content if isinstance(content, bytes) else memoryview(content))


async def prepare(
    sandbox: Sandbox, config: EnvironmentConfig, folders: Sequence[PackedFolder], timeout_s: float
) -> None:
    """Copy the folders in, then run the init commands of `config`, each within `timeout_s`.

    Raises:
        PrepareError: one of them failed; the message ends with the tail of a command's output.
    """
    for folder in folders:
        try:
            await sandbox.copy_in(config.working_directory, folder.archive)
        except FileError as error:
            raise PrepareError(f"{config.id}: the folder {folder.name!r} cannot be copied in: {error}") from error
    for command in config.init_commands:
        result = await sandbox.execute(command, timeout_s=timeout_s, working_directory=config.working_directory)
        if result.exit_code != 0:
            how = f"took more than {timeout_s:g} s" if result.timed_out else "failed"
            code = "" if result.exit_code is None else f" with exit code {result.exit_code}"
            said = tail(decode(result.stdout + b"\n" + result.stderr), 1500)
            memory = f" {OUT_OF_MEMORY}" if result.oom else ""
            raise PrepareError(f"{config.id}: the init command {command!r} {how}{code}: {said}{memory}")


class Environment:
    """The environment of `config` in `sandbox`, in which it stands ready."""

    def __init__(
        self,
        sandbox: Sandbox,
        config: EnvironmentConfig,
        timeouts: TimeoutConfig,
        *,
        output_limit_bytes: int = 65536,
        earlier_calls: int = 0,
        slots: Slots | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._config = config
        self._timeouts = timeouts
        self._output_limit_bytes = output_limit_bytes
        self._background_commands = earlier_calls  # the logs of those before stay
        self._slots = slots or NoSlots()

    @property
    def is_disk_full(self) -> bool:
        """Whether more has been written than the sandbox may hold."""
        return self._sandbox.is_disk_full

    async def step(self, call: ToolCall, action: Action, *, time_left_s: float, patience_s: float = 0.0) -> Observation:
        """Carry out `action`, which `call` asked for, within `time_left_s` seconds.

        Of the seconds that a command waits for a CPU slot, `patience_s` are not taken from these.
        """
        began, waited_before_s = time.monotonic(), self._slots.waited_s
        pass_through("exec")
        try:
            match action:
                case CommandAction():
                    observation = await self._command(action, time_left_s, patience_s)
                case WriteAction():
                    observation = await self._write(action)
                case ReadAction():
                    observation = await self._read(action)
                case DoneAction():
                    observation = _answer("ok", output="The task is marked as done.")
                case InvalidAction():
                    observation = _answer("invalid", error=action.problem)
        except FileError as error:
            observation = _answer("error", error=str(error))
        waited_s = self._slots.waited_s - waited_before_s
        asked = {"call_id": call.id, "tool_name": call.function.name}
        times = {"duration_s": time.monotonic() - began - waited_s, "slot_wait_s": waited_s}
        return observation.model_copy(update=asked | times)

    async def _command(self, action: CommandAction, time_left_s: float, patience_s: float) -> Observation:
        try:
            async with self._slots.taken(longest_s=time_left_s + patience_s) as waited_s:
                left_s = time_left_s - max(0.0, waited_s - patience_s)
                return await (self._start if action.background else self._run)(action, left_s)
        except NoSlot:
            return _answer("not_executed", error="Not executed: the time for this task is over.")

    async def _run(self, action: CommandAction, time_left_s: float) -> Observation:
        longest_s = self._timeouts.command_timeout
        timeout_s = max(0.1, min(action.timeout_s or longest_s, longest_s, time_left_s))
        result = await self._sandbox.execute(
            action.command,
            timeout_s=timeout_s,
            working_directory=self._resolve(action.working_directory or "."),
            limit_bytes=self._output_limit_bytes,
        )
        notes = [DISK_FULL] if self._sandbox.is_disk_full else []
        return _command_observation(result, timeout_s, notes)

    async def _start(self, action: CommandAction, time_left_s: float) -> Observation:
        self._background_commands += 1
        name = f"background-{self._background_commands}"
        started = await self._sandbox.execute(
            f'log="${{TMPDIR:-/tmp}}/{name}.log"\n'
            f'/bin/sh -c {shlex.quote(action.command)} >"$log" 2>&1 </dev/null &\n'
            f'echo "Started {name} as process $!; its output goes to $log"',
            timeout_s=max(0.1, min(10.0, time_left_s)),
            working_directory=self._resolve(action.working_directory or "."),
        )
        return _command_observation(started, 10.0)

    async def _write(self, action: WriteAction) -> Observation:
        path, content = self._resolve(action.path), action.content.encode()
        await self._sandbox.write_file(path, content)
        return _answer("ok", output=f"Wrote {len(content)} bytes to {path}.")

    async def _read(self, action: ReadAction) -> Observation:
        file = await self._sandbox.read_file(self._resolve(action.path), limit_bytes=self._output_limit_bytes)
        cut = file.size_bytes > len(file.content)
        note = f"Only the first {len(file.content)} of {file.size_bytes} bytes were read." if cut else ""
        return _answer("ok", output=decode(file.content), error=note, output_bytes=file.size_bytes, truncated=cut)

    def _resolve(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._config.working_directory, path))


def _answer(
    status: CallStatus, *, output: str = "", error: str = "", output_bytes: int = 0, truncated: bool = False
) -> Observation:
    return Observation(
        call_id="",
        tool_name="",
        status=status,
        output=output,
        error=error,
        output_bytes=output_bytes or len(output.encode()),
        truncated=truncated,
    )


def _command_observation(result: CommandResult, timeout_s: float, more: Sequence[str] = ()) -> Observation:
    notes = [decode(result.stderr), *more]
    if result.timed_out:
        notes.append(f"The command was killed: it took more than {timeout_s:g} s.")
    if result.oom:
        notes.append(OUT_OF_MEMORY)
    written = result.stdout_bytes + result.stderr_bytes
    return Observation(
        call_id="",
        tool_name="",
        status="timeout" if result.timed_out else "ok" if result.exit_code == 0 else "error",
        output=decode(result.stdout),
        error="\n".join(note for note in notes if note),
        exit_code=result.exit_code,
        output_bytes=written,
        truncated=written > len(result.stdout) + len(result.stderr),
    )


def describe(observation: Observation, *, limit: int, note: str | None = None) -> str:
    """The tool message that the model gets: one line each of what is not empty, texts of at most `limit` characters.

    Args:
        note: what the model has to know beforehand, such as that something else was carried out.
    """
    cut = f"cut; {observation.output_bytes} bytes in all" if observation.truncated else None
    lines = [f"Note: {shorten(note, limit)}"] if note else []
    lines.append(f"Success: {'true' if observation.status == 'ok' else 'false'}")
    if observation.output:
        lines.append(f"Output: {shorten(observation.output, limit, note=cut)}")
    if observation.error:
        lines.append(f"Error: {shorten(observation.error, limit, note=cut)}")
    if observation.exit_code is not None:
        lines.append(f"Exit code: {observation.exit_code}")
    return "\n".join(lines)


def in_short(action: Action) -> str:
    """What `action` does, as a line of text."""
    match action:
        case CommandAction():
            return action.command
        case WriteAction():
            return f"write {action.path}"
        case ReadAction():
            return f"read {action.path}"
        case DoneAction():
            return "mark_done"
        case InvalidAction():
            return action.problem
