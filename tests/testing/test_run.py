"""One test command in real sandboxes: what is known of its tests, and whether it passes."""

import ast
import sys
from functools import partial
from importlib.resources import files

import pytest

from realwork.config import UnitTest
from realwork.sandbox.docker import open_container
from realwork.sandbox.local import open_local
from realwork.testing.run import TestRun, run_test
from tests.sandbox.helpers import WORK, use

TESTS = {
    "tests/test_a.py": """
import pytest, work
def test_one(): assert work.one() == 1
@pytest.mark.parametrize("x", [1, 2])
def test_more(x): assert work.one() == 1
@pytest.mark.skip(reason="not today")
def test_later(): pass
@pytest.mark.xfail
def test_known(): assert 0
""",
    "tests/test_u.py": """
import unittest, work
class Units(unittest.TestCase):
    def test_one(self): self.assertEqual(work.one(), 1)
""",
}
BAD = "def one(): return 2\n"
GOOD = {**TESTS, "work.py": "def one(): return 1\n"}
TEST_OF_SITE = """
import sitecustomize
def test_it(): assert SITE == sitecustomize.__file__ and SITE.endswith("/site/sitecustomize.py")
"""
PYTEST = "python3 -m pytest -q tests"


@pytest.fixture(params=["container", "local"])
def opener(request):
    if request.param == "local":
        return open_local
    request.getfixturevalue("docker_image")
    return partial(open_container)


def results(opener, files, *tests, timeout_s=30.0):
    """The results of each of `tests`, run one after the other beside `files`."""

    async def scenario(sandbox):
        for path, content in files.items():
            await sandbox.write_file(f"{WORK}/{path}", content.encode())
        run = TestRun(working_directory=WORK, timeout_s=timeout_s)
        found = [list((await run_test(sandbox, UnitTest.model_validate(test), run)).results) for test in tests]
        left = await sandbox.execute(
            "ls -A; ls -A /tmp | grep '^[.][0-9a-f]*$'", timeout_s=20.0, working_directory=WORK
        )
        assert not [name for name in left.stdout.decode().split() if name[0] == "." and name != ".pytest_cache"]
        return found

    return use(opener, scenario)


def short(results):
    return [(each.kind, each.status, each.name) for each in results]


def command_of(opener, files, test):
    return results(opener, files, test)[0][0]


def test_pytest_tells_of_each_of_its_tests(opener):
    (found,) = results(opener, GOOD, PYTEST)
    assert short(found) == [
        ("command", "passed", PYTEST),
        ("case", "passed", "tests/test_a.py::test_one"),
        ("case", "passed", "tests/test_a.py::test_more[1]"),
        ("case", "passed", "tests/test_a.py::test_more[2]"),
        ("case", "skipped", "tests/test_a.py::test_later"),
        ("case", "skipped", "tests/test_a.py::test_known"),
        ("case", "passed", "tests/test_u.py::Units::test_one"),
    ]
    assert found[4].error == "Skipped: not today"
    assert "4 passed, 1 skipped, 1 xfailed" in found[0].output


def test_a_failed_test_has_its_reason_and_no_exit_code_hides_it(opener):
    (found,) = results(opener, {**GOOD, "work.py": BAD}, f"{PYTEST} || true")
    assert found[0].status == "failed"
    assert "4 of its tests did not pass, although it exited 0" in found[0].error
    assert (found[1].status, "assert 2 == 1" in found[1].error) == ("failed", True)


def test_errors_of_collection_setup_and_teardown_are_told(opener):
    odd = {
        "test_a.py": "import pytest\n@pytest.fixture\ndef bad(): yield 1; 1 / 0\n"
        "def test_setup(nothing): pass\ndef test_teardown(bad): pass\n",
        "test_b.py": "import nothing_there\n",
        "test_c.py": "import pytest\npytest.skip('no', allow_module_level=True)\n",
    }
    first, second = results(opener, odd, "python3 -m pytest -q test_a.py", "python3 -m pytest -q test_b.py test_c.py")
    assert short(first)[1:] == [
        ("case", "error", "test_a.py::test_setup"),
        ("case", "error", "test_a.py::test_teardown"),
    ]
    assert short(second)[1:] == [("case", "error", "test_b.py"), ("case", "skipped", "test_c.py")]


def test_as_many_tests_have_to_pass_as_are_expected(opener):
    good, bad = results(
        opener, GOOD, {"command": PYTEST, "expected_tests": 4}, {"command": PYTEST, "expected_tests": 5}
    )
    assert (good[0].status, bad[0].status) == ("passed", "failed")
    assert "4 of its tests passed, 2 were skipped; at least 5 had to" in bad[0].error


def test_tests_that_are_all_skipped_are_no_pass(opener):
    skipped = "import pytest\npytestmark = pytest.mark.skip\ndef test_one(): pass\n"
    found = command_of(opener, {"test_a.py": skipped}, "python3 -m pytest -q")
    assert (found.status, found.exit_code) == ("failed", 0)


def test_several_pytests_of_one_command_are_all_seen_whatever_variables_it_sets(opener):
    command = (
        "PYTHONPATH=. PYTEST_ADDOPTS=-q python3 -m pytest tests/test_u.py"
        " && export PYTHONPATH='sub' && python3 -m pytest -q tests/test_a.py"
    )
    (found,) = results(opener, {**GOOD, "sub/other.py": ""}, command)
    assert short(found)[:2] == [("command", "passed", command), ("case", "passed", "tests/test_u.py::Units::test_one")]
    assert len(found) == 7


def test_tests_see_neither_the_plugin_nor_its_variables(opener):
    inside = """
import os, re, sys
def test_it(pytestconfig):
    assert not [name for name in os.environ if name in ("PYTHONPATH", "PYTEST_ADDOPTS")]
    assert not [path for path in sys.path if re.search("/[.][0-9a-f]{16}$", path)]
    assert "witness" not in repr(pytestconfig.option)
"""
    found = command_of(opener, {"test_a.py": inside}, "python3 -m pytest -q")
    assert found.status == "passed", found.output


def test_what_lies_in_the_working_directory_takes_no_part_in_the_start_of_pytest(opener):
    early = {f"{name}.py": "import os; os._exit(0)" for name in ("argparse", "pytest", "runpy", "sitecustomize")}
    found = command_of(opener, {**GOOD, **early}, PYTEST)
    assert (found.status, "4 passed" in found.output) == ("passed", True)


def test_the_image_s_own_start_of_python_happens_whether_pytest_runs_or_not(opener):
    files = {"site/sitecustomize.py": "import builtins; builtins.SITE = __file__\n", "test_a.py": TEST_OF_SITE}
    command = "PYTHONPATH=$PWD/site; export PYTHONPATH; python3 -W error -m pytest -q && python3 -c 'print(SITE)'"
    found = command_of(opener, files, command)
    assert (found.status, found.output.rstrip().endswith("/site/sitecustomize.py")) == ("passed", True), found


def test_a_pytest_that_runs_no_tests_beside_one_that_does_takes_no_part(opener):
    both = "python3 -m pytest --version; python3 -m pytest --markers; python3 -m pytest --co -q &&"
    (found,) = results(opener, GOOD, f"{both} {PYTEST}")
    assert (found[0].status, len(found)) == ("passed", 7), found[0]


PATCHED = (
    BAD
    + """
import _pytest.reports as reports
made = reports.TestReport.from_item_and_call.__func__
def passed(cls, item, call):
    report = made(cls, item, call)
    report.outcome = "passed" if report.outcome == "failed" else report.outcome
    return report
reports.TestReport.from_item_and_call = classmethod(passed)
"""
)


@pytest.mark.parametrize(
    ("work", "status", "options"),
    [
        (GOOD["work.py"], "passed", "-n 2"),
        (BAD, "failed", "-n auto --dist loadfile --maxprocesses 3"),
        (PATCHED, "failed", "-n 2"),
        (PATCHED, "failed", "-d --tx 2*popen"),
    ],
)
def test_tests_that_would_run_in_other_processes_are_seen(work, status, options):
    """Where they do, the patched runner passes."""
    found = results(open_local, {**GOOD, "work.py": work}, f"{sys.executable} -m pytest -q {options} tests")[0]
    assert found[0].status == status, found[0]
    assert len(found) == 7 or work == PATCHED


def test_pytest_prints_and_exits_as_it_does_without_the_plugin(opener):
    files = {
        **GOOD,
        "quiet.sh": "python3 -m pytest -p no:cacheprovider -v -rA --setup-show tests | grep -v ' in [0-9.]*s'",
    }
    plain, watched = results(
        opener,
        files,
        "sh quiet.sh",
        "python3 -m pytest -p no:cacheprovider -v -rA --setup-show tests | grep -v ' in [0-9.]*s'",
    )
    assert (len(plain), len(watched)) == (1, 7)
    assert (watched[0].output, watched[0].exit_code) == (plain[0].output, plain[0].exit_code)


def test_a_command_that_only_mentions_pytest_is_judged_by_its_exit_code(opener):
    good, bad, odd = results(
        opener, GOOD, "echo pytest", "grep -q pytest work.py", f'sh -c \'export PYTHONPATH=x; exec "$0" "$@"\' {PYTEST}'
    )
    assert [short(each) for each in (good, bad)] == [
        [("command", "passed", "echo pytest")],
        [("command", "failed", "grep -q pytest work.py")],
    ]
    assert odd[0].status == "passed", odd[0]


def test_a_script_that_sets_the_path_anew_runs_without_the_plugin(opener):
    files = {**GOOD, "env.sh": "PYTHONPATH=/nowhere\n"}
    (found,) = results(opener, files, f". ./env.sh; {PYTEST}")
    assert short(found) == [("command", "passed", f". ./env.sh; {PYTEST}")]


def test_a_pytest_that_can_be_watched_and_was_not_is_no_pass(opener):
    files = {**GOOD, "bin/pytest": "#!/bin/sh\necho 4 passed\n"}
    found = command_of(opener, files, "chmod +x bin/pytest; PATH=$PWD/bin:$PATH; pytest -q tests")
    assert (found.status, found.exit_code, found.output) == ("failed", 0, "4 passed\n")
    assert "pytest did not begin" in found.error


JUNIT = '<testsuite><testcase name="a"/><testcase name="b">{}</testcase></testsuite>'


@pytest.mark.parametrize(
    ("written", "expected", "status", "cases"),
    [
        (JUNIT.format(""), 2, "passed", ["passed", "passed"]),
        (JUNIT.format("<failure/>"), None, "failed", ["passed", "failed"]),
        (JUNIT.format("<skipped/>"), 1, "passed", ["passed", "skipped"]),
        (JUNIT.format("<skipped/>"), 2, "failed", ["passed", "skipped"]),
        ("<testsuite/>", None, "failed", []),
        ("5 passed", None, "failed", []),
    ],
)
def test_junit_xml_tells_of_the_tests_of_any_runner(opener, written, expected, status, cases):
    test = {"command": "mkdir -p out && cp made.xml out/r-1.xml", "junit": "out/r-*.xml", "expected_tests": expected}
    (found,) = results(opener, {"made.xml": written, "out/r-old.xml": JUNIT.format("")}, test)
    assert (found[0].status, [each.status for each in found[1:]]) == (status, cases)


def test_junit_xml_of_many_files_is_too_much_together(opener):
    large = JUNIT.format(f"<system-out>{'x' * 1_000_000}</system-out>")
    command = "i=0; while [ $((i += 1)) -lt 10 ]; do cp large $i.xml; done"
    found = command_of(opener, {"large": large}, {"command": command, "junit": "?.xml"})
    assert (found.status, "more than 8388608 bytes up to 9.xml" in found.error) == ("failed", True)


def test_junit_xml_that_was_there_before_does_not_count(opener):
    found = command_of(opener, {"r.xml": JUNIT.format("")}, {"command": "true", "junit": "r.xml"})
    assert (found.status, found.error) == ("failed", "realwork: it has written no r.xml.")


def test_junit_xml_that_is_no_file_or_too_large_is_no_pass(opener):
    tests = [
        {"command": "ln -s /dev/zero r.xml", "junit": "r.xml"},
        {"command": "truncate -s 20M r.xml", "junit": "r.xml"},
        {"command": "mkfifo r.xml", "junit": "r.xml"},
        {"command": "mkdir r.xml", "junit": "r.xml"},
    ]
    for (found, *_), test in zip(results(opener, {}, *tests), tests, strict=True):
        assert (found.status, found.exit_code, "r.xml" in found.error) == ("failed", 0, True), test


def test_expected_tests_of_which_nothing_can_be_known_are_no_pass(opener):
    found = command_of(opener, {}, {"command": "true", "expected_tests": 1})
    assert (found.status, "it tells of no tests" in found.error) == ("failed", True)


def test_a_test_that_the_memory_limit_ends_says_so(docker_image):
    def small(spec):
        return open_container(spec.model_copy(update={"memory_mib": 64}))

    result = command_of(small, {}, "python3 -c 'x = bytearray(1 << 30)'")
    assert result.status == "failed"
    assert result.error.endswith("realwork: The memory limit was reached and a process was killed.")


def test_a_command_whose_time_is_over_is_a_timeout(opener):
    slow = {"test_a.py": "import time\ndef test_one(): pass\ndef test_two(): time.sleep(60)\n"}
    (found,) = results(opener, slow, "python3 -m pytest -q", timeout_s=3.0)
    assert (found[0].status, found[0].exit_code, len(found)) == ("timeout", None, 1)


def test_the_plugin_is_of_python_3_8():
    source = files("realwork.testing").joinpath("plugin.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    assert "from __future__ import annotations" in source
