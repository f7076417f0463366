import json

from realwork.model.context import drop_oldest, fit, to_chat
from realwork.types import FunctionCall, Message, ToolCall

HEAD = [Message(role="system", content="s"), Message(role="user", content="task")]


def exchange(number, calls=1):
    ids = [f"{number}-{position}" for position in range(calls)]
    tool_calls = tuple(ToolCall(id=one, function=FunctionCall(name="t", arguments="{}")) for one in ids)
    return [
        Message(role="assistant", content=str(number), tool_calls=tool_calls),
        *(Message(role="tool", tool_call_id=one, content="ok") for one in ids),
    ]


def conversation(*exchanges):
    return HEAD + [message for each in exchanges for message in each]


def test_a_history_that_fits_stays_as_it_is():
    messages = conversation(exchange(0), exchange(1))
    assert fit(messages, len(messages)) == messages


def test_the_oldest_exchanges_leave_first_and_the_head_stays():
    messages = conversation(exchange(0), exchange(1), exchange(2))
    assert fit(messages, 7) == conversation(exchange(1), exchange(2))
    assert fit(messages, 4) == conversation(exchange(2))


def test_calls_and_their_answers_are_never_parted():
    for calls in range(1, 6):
        fitted = fit(conversation(exchange(0, calls), exchange(1, 2), exchange(2, calls)), 8)
        asked = [call.id for message in fitted for call in message.tool_calls]
        assert asked == [message.tool_call_id for message in fitted if message.role == "tool"]


def test_the_last_exchange_is_kept_however_long_it_is():
    assert fit(conversation(exchange(0), exchange(1, 20)), 5) == conversation(exchange(1, 20))


def test_half_of_the_exchanges_can_be_dropped_until_one_is_left():
    messages = conversation(*(exchange(number) for number in range(4)))
    assert drop_oldest(messages) == conversation(exchange(2), exchange(3))
    assert drop_oldest(conversation(exchange(0))) is None


def test_arguments_that_are_no_object_go_back_as_an_empty_one():
    calls = tuple(
        ToolCall(id=str(position), function=FunctionCall(name="t", arguments=arguments))
        for position, arguments in enumerate(["{", "[1]", "", '{"a": "\\ud800"}'])
    )
    sent = to_chat([Message(role="assistant", content="a\0\ud800", tool_calls=calls)])[0]
    assert [call["function"]["arguments"] for call in sent["tool_calls"]][:3] == ["{}", "{}", "{}"]
    assert sent["content"] == "a��"
    json.dumps(sent).encode()
