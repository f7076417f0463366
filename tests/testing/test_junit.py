"""JUnit XML: that of real runners, and that of an agent who wishes the reader ill."""

import resource
import time
from collections import deque

import pytest

from realwork.testing.evidence import evidence
from realwork.testing.junit import MOST_DEPTH, MOST_READ_CASES, read_junit

PLAIN = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="5"><properties><property name="a" value="b"/></properties>
<testcase classname="tests.test_a" name="test_ok" time="1,234.5"/>
<testcase classname="tests.test_a" name="test_bad" time="0.25">
  <failure message="assert 1 == 2">long &amp; bad</failure>
</testcase>
<testcase classname="tests.test_a" name="test_late"><skipped message="later"/></testcase>
<testcase file="a.js" name="broken" time="x"><error type="T"><![CDATA[<boom>]]></error></testcase>
<testcase name="both" time="-1"><system-out>noise</system-out><error/><failure/></testcase>
<testcase/>
</testsuite></testsuites>"""


def test_the_cases_come_in_their_order_with_what_became_of_them():
    found = [(case.name, case.status, case.duration_s, case.message) for case in read_junit(PLAIN.encode())]
    assert found == [
        ("tests.test_a::test_ok", "passed", 1234.5, ""),
        ("tests.test_a::test_bad", "failed", 0.25, "assert 1 == 2\nlong & bad"),
        ("tests.test_a::test_late", "skipped", 0.0, "later"),
        ("a.js::broken", "error", 0.0, "<boom>"),
        ("both", "error", 0.0, ""),
        ("unnamed", "passed", 0.0, ""),
    ]


def test_namespaces_nesting_and_other_encodings_are_read():
    nested = '<t:testsuite xmlns:t="urn:x"><t:testsuite><t:testcase name="ü"/></t:testsuite></t:testsuite>'
    encodings = ("utf-8", "utf-16")
    assert [[case.name for case in read_junit(nested.encode(name))] for name in encodings] == [["ü"], ["ü"]]


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><testsuite><testcase name='&i;'/></testsuite>"
)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is no XML: no element found"),
        (b"5 passed", "it is no XML: syntax error"),
        (b"\0\xff" * 1000, "it is no XML"),
        (PLAIN.encode()[:-20], "it is no XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><testsuite/>', "encodings are not supported"),
        (b'<?xml version="1.0" encoding="nonsense"?><testsuite/>', "unknown encoding: nonsense"),
        (LAUGHS.encode(), "a document type"),
        (b'<!DOCTYPE t SYSTEM "file:///etc/passwd"><testsuite/>', "a document type"),
        (b"<a>" * (MOST_DEPTH + 1), f"more than {MOST_DEPTH} deep"),
        (b"<a>" * 2_000_000, f"more than {MOST_DEPTH} deep"),
        (b"<t>" + b"<testcase/>" * (MOST_READ_CASES + 1), f"more than {MOST_READ_CASES} cases"),
        (b"<t a='" + b"x" * 8_000_000, "it is no XML"),
    ],
    ids=[
        "nothing",
        "text",
        "bytes",
        "cut off",
        "encoding",
        "nonsense",
        "laughs",
        "file",
        "deep",
        "deeper",
        "many",
        "long",
    ],
)
def test_what_is_no_result_is_refused_at_once_with_the_reason(content, why):
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=why):
        deque(read_junit(content), maxlen=0)
    assert time.process_time() - began < 5.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_a_message_of_any_length_is_cut():
    content = b"<t><testcase name='" + b"n" * 9000 + b"'><failure>" + b"y" * 4_000_000 + b"</failure></testcase></t>"
    (case,) = read_junit(content)
    assert (len(case.name) < 600, len(case.message) < 2100) == (True, True)


def test_of_too_many_cases_those_that_failed_are_kept_and_all_are_counted():
    cases = "<testcase name='p'/>" * 6000 + "<testcase name='f'><failure/></testcase>" * 2
    found = evidence(read_junit(f"<t>{cases}</t>".encode()))
    assert (found.passed, found.failed, len(found.cases)) == (6000, 2, 5000)
    assert [case.name for case in found.cases[-3:]] == ["p", "f", "f"]
