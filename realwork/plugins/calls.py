"""One call of one plugin in this process.

Guarantees: whatever the plugin's code does short of ending the process becomes an `Answer`.
"""

import asyncio
import pickle
import re
import traceback
from collections.abc import Awaitable, Collection
from types import MappingProxyType

from realwork.errors import PluginError, RealworkError, blame
from realwork.plugins.answers import Answer, Filtered, State, UnclearError, check_size, checked
from realwork.plugins.base import BasePlugin, PluginContext
from realwork.plugins.told import HookCall
from realwork.runfile.secrets import scrub
from realwork.text import shorten, valid_text

LARGEST_STATE_BYTES = 1 << 20
LONGEST_ERROR = 1000
NOTHING: State = MappingProxyType({})
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


async def call_plugin(
    plugin: BasePlugin, call: HookCall, state: State = NOTHING, *, hidden: Collection[str] = ()
) -> Answer:
    """Call `plugin` in this process; none of `hidden` stands in an error.

    Never raises but for cancellation, by whomever, and `KeyboardInterrupt`.
    """
    try:
        with blame(PluginError, "its code failed"):
            return await _call(plugin, call, state)
    except (RealworkError, SystemExit) as error:
        return Answer(error=f"{call.hook}: {explain(error, hidden=hidden)}")


async def within(limit_s: float, call: HookCall, called: Awaitable[Answer]) -> Answer:
    """What `called` answers to `call` if it does so in time; it is cancelled otherwise."""
    try:
        async with asyncio.timeout(limit_s):
            return await called
    except TimeoutError:
        return no_answer(call, limit_s)


def no_answer(call: HookCall, limit_s: float) -> Answer:
    """What comes of a call that takes longer than `limit_s`."""
    return Answer(error=f"{call.hook}: gave no answer for {limit_s:g} s", lost=True)


async def _call(plugin: BasePlugin, call: HookCall, state: State) -> Answer:
    if not await plugin.initialize():
        raise PluginError("initialize() returned false")
    try:
        context = await _executed(plugin, call, _context(call, state))
        try:
            answer = checked(plugin, call, context)
        except UnclearError:
            context, answer = await _one_at_a_time(plugin, call, state)
        check_size(answer, call)
    finally:
        await plugin.cleanup()
    return answer.model_copy(update={"state": _kept(context, call, state)})


def _context(call: HookCall, state: State) -> PluginContext:
    return PluginContext({key: pickle.loads(value) for key, value in state.items()} | call.context())


async def _executed(plugin: BasePlugin, call: HookCall, context: PluginContext) -> PluginContext:
    answered = await plugin.execute(call.hook, context)
    if not isinstance(answered, PluginContext):
        raise PluginError(f"execute() must return the context, not {type(answered).__name__}")
    return answered


async def _one_at_a_time(plugin: BasePlugin, call: HookCall, state: State) -> tuple[PluginContext, Answer]:
    """Ask a filter of each action alone, as if it had not been asked of all; the context after that, and its answer."""
    context, filtered = _context(call, state), list[Filtered]()
    for action in call.actions or ():
        alone = call.model_copy(update={"actions": (action,)})
        context.update(alone.context())
        context = await _executed(plugin, alone, context)
        filtered += checked(plugin, alone, context).filtered or ()
    return context, Answer(filtered=tuple(filtered))


def _kept(context: PluginContext, call: HookCall, state: State) -> dict[str, bytes]:
    """What the plugin set or changed under keys of its own, pickled."""
    given = call.context().keys() | {"analysis", "suggestions", "evaluation", "should_continue", "strategy"}
    own = {key: pickle.dumps(value) for key, value in context.as_dict().items() if key not in given}
    if sum(map(len, own.values())) > LARGEST_STATE_BYTES:
        raise PluginError(f"what it keeps in the context is larger than {LARGEST_STATE_BYTES >> 20} MiB")
    return {key: value for key, value in own.items() if state.get(key) != value}


def explain(error: BaseException, *, hidden: Collection[str] = ()) -> str:
    """What went wrong in a plugin, and in which line of it, if that is known, without the texts `hidden`."""
    cause = error.__cause__ or error
    said = shorten(scrub(_ANSI.sub("", str(error)).strip(), hidden), LONGEST_ERROR)
    where = [] if isinstance(cause, RealworkError) else [type(cause).__name__]
    frames = traceback.extract_tb(cause.__traceback__) if error.__cause__ is not None else []
    if frames:
        where.append(f"{frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}")
    return valid_text(f"{said} ({', '.join(where)})" if where else said)
