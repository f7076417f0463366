import json

import pytest

from realwork.model.context import characters, halved, narrowed, to_chat, visible
from realwork.types import FunctionCall, Message, ToolCall, Window

WHOLE = Window()
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


def shown(messages, window=WHOLE, **limits):
    return visible(messages, narrowed(messages, window, **{"max_messages": 1000} | limits))


def long(number, characters=2000):
    call = ToolCall(id=str(number), function=FunctionCall(name="t", arguments="{}"))
    said = Message(role="assistant", tool_calls=(call,))
    return [said, Message(role="tool", tool_call_id=str(number), content=f"{number}:" + "x" * characters)]


def lengths(messages):
    return [len(message.content) for message in messages if message.role == "tool"]


def test_a_history_that_fits_stays_as_it_is():
    messages = conversation(exchange(0), exchange(1))
    assert shown(messages, max_messages=len(messages)) == messages
    assert shown(messages, max_tokens=10**6, tokens_per_character=1.0) == messages


def test_the_oldest_exchanges_leave_first_and_the_head_stays():
    messages = conversation(exchange(0), exchange(1), exchange(2))
    assert shown(messages, max_messages=7) == conversation(exchange(2))
    assert shown(messages, max_messages=4) == conversation(exchange(2))
    assert shown(conversation(*map(exchange, range(8))), max_messages=16) == conversation(*map(exchange, range(3, 8)))


def test_calls_and_their_answers_are_never_parted():
    for calls in range(1, 6):
        fitted = shown(conversation(exchange(0, calls), exchange(1, 2), exchange(2, calls)), max_messages=8)
        asked = [call.id for message in fitted for call in message.tool_calls]
        assert asked == [message.tool_call_id for message in fitted if message.role == "tool"]


def test_the_last_exchange_is_kept_however_long_it_is():
    messages = conversation(exchange(0), exchange(1, 20))
    assert shown(messages, max_messages=5) == conversation(exchange(1, 20))
    huge = conversation(long(0), long(1, 10**6))
    assert lengths(shown(huge, max_tokens=100, tokens_per_character=0.25)) == [10**6 + 2]


def test_old_observations_are_cut_short_before_anything_is_left_out():
    messages = conversation(*map(long, range(6)))
    fitted = shown(messages, max_tokens=3000, tokens_per_character=0.25)
    assert len(fitted) == len(messages)
    assert lengths(fitted)[:2] == [lengths(fitted)[0]] * 2
    assert lengths(fitted)[0] < 300
    assert lengths(fitted)[-1] == 2002
    assert characters(fitted) * 0.25 <= 0.75 * 3000


def test_exchanges_leave_where_short_observations_are_not_enough():
    messages = conversation(*map(long, range(40)))
    fitted = shown(messages, max_tokens=1000, tokens_per_character=0.25)
    assert fitted[:2] == HEAD
    assert 4 < len(fitted) < len(messages)
    assert lengths(fitted)[-1] > 2000
    assert characters(fitted) * 0.25 <= 0.75 * 1000


def test_a_prompt_keeps_its_beginning_while_there_is_room():
    messages, window, beginnings = list(HEAD), WHOLE, []
    for number in range(60):
        messages += exchange(number)
        window = narrowed(messages, window, max_messages=20)
        beginnings.append(visible(messages, window)[2].content)
        assert len(visible(messages, window)) <= 20
    assert len(set(beginnings)) < 25


def test_a_window_never_widens():
    messages, window = list(HEAD), WHOLE
    for number in range(30):
        messages += long(number)
        narrower = narrowed(messages, window, max_messages=30, max_tokens=2000, tokens_per_character=0.25)
        assert narrower.dropped >= window.dropped
        assert narrower.shortened >= window.shortened
        window = narrower


def test_half_of_the_exchanges_can_be_dropped_until_one_is_left():
    messages = conversation(*(exchange(number) for number in range(4)))
    half = halved(messages, WHOLE)
    assert visible(messages, half) == conversation(exchange(2), exchange(3))
    assert visible(messages, halved(messages, half)) == conversation(exchange(3))
    assert halved(messages, halved(messages, half)) is None
    assert halved(conversation(exchange(0)), WHOLE) is None


def test_arguments_that_are_no_object_go_back_as_an_empty_one():
    calls = tuple(
        ToolCall(id=str(position), function=FunctionCall(name="t", arguments=arguments))
        for position, arguments in enumerate(["{", "[1]", "", '{"a": NaN}', '{"a": ' + "[" * 99999])
    )
    sent = to_chat([Message(role="assistant", content="a\0\ud800", tool_calls=calls)])[0]
    assert [call["function"]["arguments"] for call in sent["tool_calls"]] == ["{}"] * 5
    assert sent["content"] == "a��"


def test_what_goes_back_is_valid_text_however_deep_it_stands():
    given = {"a\ud800": ["\ud800 and \0", {"b": "\udfff"}, 1, None, True], "c": "\\u0000"}
    call = ToolCall(id="1", function=FunctionCall(name="t", arguments=json.dumps(given)))
    sent = to_chat([Message(role="assistant", tool_calls=(call,))])[0]["tool_calls"][0]["function"]["arguments"]
    mark = "�"
    assert json.loads(sent) == {f"a{mark}": [f"{mark} and {mark}", {"b": mark}, 1, None, True], "c": "\\u0000"}


@pytest.mark.parametrize(
    ("name", "sent"),
    [("write_file", "write_file"), ("", "unknown"), ("<|im_end|> x", "__im_end___x"), ("n" * 420, "n" * 64)],
)
def test_a_name_that_no_tool_can_have_goes_back_as_one_that_could(name, sent):
    call = ToolCall(id="1", function=FunctionCall(name=name, arguments="{}"))
    (chat,) = to_chat([Message(role="assistant", tool_calls=(call,))])
    assert chat["tool_calls"][0]["function"]["name"] == sent


def test_a_reply_without_anything_goes_back_as_something():
    empty, calling = to_chat(
        [
            Message(role="assistant", content=" \n"),
            Message(role="assistant", tool_calls=(ToolCall(id="1", function=FunctionCall(name="t", arguments="{}")),)),
        ]
    )
    assert (empty["content"], calling["content"]) == ("(empty)", "")
