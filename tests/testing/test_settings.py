"""The settings of pytest in files that an agent may edit."""

import asyncio
import time
import tomllib

import pytest

from realwork.errors import ArtifactRejected, GradingError
from realwork.sandbox.base import CommandResult, SandboxSpec
from realwork.sandbox.docker import open_container
from realwork.sandbox.local import open_local
from realwork.sandbox.memory import MemorySandbox
from realwork.testing import settings
from realwork.testing.settings import read_settings, restore_settings, with_settings_of
from tests.sandbox.helpers import WORK, run, use

PROJECT = '[project]\nname = "x"\n'
CHEAT = '[tool.pytest.ini_options]\naddopts = "--deselect=tests/test_a.py -p cheat"\n'
OWN = '[tool.pytest.ini_options]\naddopts = "-ra"\n'


def changed(agents, pristine, name="pyproject.toml"):
    found = with_settings_of(name, agents.encode(), None if pristine is None else pristine.encode())
    return None if found is None else found.decode()


def test_other_changes_of_the_file_are_left_alone():
    for agents in (PROJECT, PROJECT + OWN, "# a comment\n" + OWN + "[tool.ruff]\nline-length = 9\n"):
        assert changed(agents, OWN if OWN in agents else None) == agents


@pytest.mark.parametrize(
    "cheat",
    [
        CHEAT,
        'tool.pytest.ini_options.addopts = "-p cheat"\n',
        '[tool]\npytest = {ini_options = {addopts = "-p cheat"}}\n',
        '["tool"."pytest".ini_options]\naddopts = "-p cheat"\n',
        '[tool.pytest]\naddopts = ["-p", "cheat"]\n',
        '[tool.pytest.ini_options]\npython_files = [\n"nothing.py",\n]\n[tool.black]\nx = 1\n',
        '[tool.pytest.ini_options]\nmarkers = """\n[project]\n"""\naddopts = "-p cheat"\n',
        '[tool.pytest.ini_options]\raddopts = "-p cheat"\r',
        '[tool.pytest.ini_options]\nfilterwarnings = ["ignore::cheat.X"]\n',
        '[tool.pytest.ini_options]\nmarkers = 2020-01-01\naddopts = "-p cheat"\n',
        '[tool.pytest.ini_options]\naddopts = "-p cheat"\nmarkers = ' + "[" * 900 + "]" * 900 + "\n",
        '[tool.pytest.ini_options]\naddopts = "-p cheat"\n# ' + "x" * 70_000 + "\n",
    ],
)
@pytest.mark.parametrize("before", [None, PROJECT, PROJECT + OWN])
def test_settings_that_choose_the_tests_are_as_they_were(cheat, before):
    found = changed(cheat, before) or ""
    assert "cheat" not in found
    assert "nothing.py" not in found
    assert ('"-ra"' in found) == (before == PROJECT + OWN)


def test_the_rest_of_a_file_with_changed_settings_is_still_the_agents():
    found = changed(PROJECT + CHEAT + "[tool.ruff]\nline-length = 9\n", PROJECT + OWN)
    assert found == PROJECT + '[tool.ruff]\nline-length = 9\n[tool.pytest.ini_options]\n"addopts" = "-ra"\n'


def test_settings_that_choose_no_tests_are_the_agents():
    agents = '[tool.pytest.ini_options]\npythonpath = ["src"]\ntestpaths = ["fake"]\nmarkers = ["slow"]\n'
    found = changed(agents, None)
    assert found == '[tool.pytest.ini_options]\n"pythonpath" = ["src"]\n"markers" = ["slow"]\n'


def test_a_file_that_cannot_be_parsed_is_the_pristine_one_unless_no_parser_finds_settings_in_either():
    for agents in ("[tool.pytest\n", '[tool."p\\x79test"]\naddopts = ["-p", "cheat"]\n', "a = 1\na = 2\n"):
        assert changed(agents, OWN) == OWN
    assert changed("[tool.pytest\n", None) is None
    assert changed("a = 1\na = 2\n", PROJECT) == "a = 1\na = 2\n"
    assert with_settings_of("pyproject.toml", b"# pytest \xff\n", OWN.encode()) == OWN.encode()


def test_setup_cfg_is_treated_alike():
    agents = "[metadata]\nname = x\n[tool:pytest]\naddopts = -p cheat\npythonpath =\n  a\n  b\n[flake8]\nmax = 1\n"
    found = changed(agents, "[tool:pytest]\naddopts = -ra\n", "setup.cfg")
    assert found == ("[metadata]\nname = x\n[flake8]\nmax = 1\n[tool:pytest]\naddopts = -ra\npythonpath = a\n    b\n")
    assert changed("[metadata]\nname = x\n", None, "setup.cfg") == "[metadata]\nname = x\n"


@pytest.mark.parametrize(
    "cheat",
    [
        "[tool:pytest] # ]\naddopts = -p cheat\n",
        "[metadata]\nname = x\x0c[tool:pytest]\x0caddopts = -p cheat\x0c",
        "[metadata]\rname = x\r[tool:pytest]\raddopts = -p cheat\r",
        "[tool:pytest]\n[more\naddopts = -p cheat\n",
        "[tool:pytest]\nmarkers = x\n[more\naddopts : -p cheat\n",
        "[tool:pytest]\nmarkers = x\n[tool:pytest]\naddopts = -p cheat\n",
        "\ufeff[tool:pytest]\naddopts = -p cheat\n",
        "[tool:pytest]\nfilterwarnings = ignore::cheat.X\n",
    ],
)
@pytest.mark.parametrize("before", [None, "[metadata]\nname = x\n", "[tool:pytest] # ours\naddopts = -ra\n"])
def test_setup_cfg_is_read_as_pytest_does(cheat, before):
    found = changed(cheat, before, "setup.cfg") or ""
    assert "cheat" not in found or "tool:pytest" not in found
    assert ("addopts = -ra" in found) == ("-ra" in (before or ""))


@pytest.mark.parametrize(
    "odd",
    [
        'x = ["""]\nLINES"""]\n',
        'x = { y = """#\nLINES,""" }\n',
        'x = """\\"""# \nLINES"""\n',
        '# x = """\nx = ["""]\nLINES"""]\n# """\n',
        "x = 'x = \"\"\"'\ny = [''']\nLINES''']\nz = '\"\"\"'\n",
    ],
)
def test_lines_of_strings_that_pytest_6_takes_for_settings_are_not_left(odd):
    agents = odd.replace("LINES", CHEAT)
    assert "tool" not in tomllib.loads(agents)
    assert changed(agents, None) is None
    assert changed(agents, PROJECT + OWN) == PROJECT + OWN


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_strings_of_many_lines_are_the_agents(quotes):
    agents = f"{PROJECT}legacy = {quotes}\n[testenv]\ncommands = pytest -k 'a' \"b\"\n{quotes}\n"
    assert changed(agents, PROJECT) == agents


def test_a_value_of_another_type_is_another_value():
    pristine = "[tool.pytest.ini_options]\nxfail_strict = 1\n"
    found = changed(pristine.replace("1", "true"), pristine)
    assert found == '[tool.pytest.ini_options]\n"xfail_strict" = 1\n'


@pytest.mark.parametrize("part", ["a", '"a"', "'a'", "a "])
def test_a_file_that_takes_long_to_parse_is_not_parsed(part):
    began = time.monotonic()
    assert changed(PROJECT + CHEAT + ".".join([part] * 12_000) + " = 1\n", OWN) == OWN
    assert changed("[tool]\npytest" + ".a" * 150 + " = 1\n", OWN) == OWN
    assert time.monotonic() - began < 1.0


def test_a_pristine_file_is_returned_whatever_it_is():
    whole = PROJECT + OWN + "# " + "x" * 70_000
    assert changed(whole, whole) == whole
    assert changed(whole.replace('"-ra"', '"-rb"'), whole) == whole


def restored(pristine, *commands):
    """What stands in the files with settings after an agent's `commands`, by path; links and folders are named."""

    async def scenario():
        spec = SandboxSpec(name="settings", image="none")
        async with open_local(spec) as sandbox:
            for path, content in pristine.items():
                await sandbox.write_file(f"/workspace/{path}", content.encode())
            before = await read_settings(sandbox, "/workspace")
            for command in commands:
                done = await sandbox.execute(command, timeout_s=20.0, working_directory="/workspace")
                assert done.exit_code == 0, done.stderr
            await restore_settings(sandbox, "/workspace", before)
            names = " -o ".join(f"-name {name}" for name in settings.EDITED)
            look = (
                f"find . {names} | while read -r a; do [ -L $a ] && echo link || [ -d $a ] && echo dir; echo $a; done"
            )
            listed = await sandbox.execute(look, timeout_s=20.0, working_directory="/workspace")
            paths = listed.stdout.decode().split()
            return {path: (await sandbox.read_file(f"/workspace/{path}")).content.decode() for path in paths}

    return {path.removeprefix("./"): content for path, content in asyncio.run(scenario()).items()}


CFG = "[tool:pytest]\naddopts = -ra\n"


@pytest.mark.parametrize(
    "command",
    [
        "rm -r pkg pyproject.toml",
        "rm -r pkg; echo >pkg; rm pyproject.toml; mkdir -p pyproject.toml/a",
        "rm -r pkg; ln -s . pkg; rm pyproject.toml; ln -s nowhere pyproject.toml",
        "rm -r pkg pyproject.toml; mkdir pkg; mkfifo pkg/setup.cfg pyproject.toml",
        "rm pyproject.toml; ln -s pkg/setup.cfg pyproject.toml",
    ],
)
def test_files_with_settings_come_back(command):
    files = {"pyproject.toml": PROJECT + OWN, "pkg/setup.cfg": CFG}
    assert restored(files, command) == files


def test_files_without_settings_stay_deleted():
    assert restored({"pyproject.toml": PROJECT, "pkg/setup.cfg": "[metadata]\nname = x\n"}, "rm -r *") == {}


def test_a_link_to_another_file_with_settings_is_a_file_of_its_own():
    other = OWN.replace("-ra", "-x")
    files = {"pyproject.toml": OWN, "pkg/pyproject.toml": other}
    command = f"rm pyproject.toml; echo '{OWN}' >pkg/pyproject.toml; ln -s pkg/pyproject.toml pyproject.toml"
    found = restored(files, command)
    assert "-ra" in found["pyproject.toml"]
    assert '"-x"' in found["pkg/pyproject.toml"]


@pytest.mark.parametrize(
    "other", [{"setup.cfg": CFG}, {"pytest.ini": ""}, {"tox.ini": "[pytest]\naddopts = -ra\n"}, {"pyproject.toml": OWN}]
)
def test_settings_of_the_agents_hide_none(other):
    free = '[tool.pytest.ini_options]\npythonpath = ["src"]\n'
    path = "pkg/pyproject.toml" if "pyproject.toml" in other else "pyproject.toml"
    bringing = f"mkdir -p pkg && cat >{path} <<'END'\n{free}END"
    assert "pytest" not in restored(other, bringing)[path]
    assert "src" in restored({"tox.ini": "[testenv]\ncommands = pytest\n"}, bringing)[path]


def test_any_number_of_files_may_stand_there_and_the_agent_may_add_some():
    files = {f"{number}/pyproject.toml": PROJECT for number in range(250)}
    found = restored(files, "for a in $(seq 300 520); do mkdir $a && echo >$a/setup.cfg; done; echo >7/pyproject.toml")
    assert len(found) == 250 + 221
    assert found["7/pyproject.toml"].strip() == ""


@pytest.mark.parametrize("making", ["echo >$a/setup.cfg", "ln -s nowhere $a/setup.cfg"])
def test_files_of_the_agents_that_are_too_many_are_rejected(making):
    """Those that nobody can read too: each takes the time of its removal."""
    most = settings.MOST_BYTES // settings.COST_BYTES
    with pytest.raises(ArtifactRejected, match="exceed"):
        restored({}, f"for a in $(seq {most + 1}); do mkdir $a && {making}; done")


def test_pristine_files_that_are_too_large_are_no_doing_of_the_agents():
    with pytest.raises(GradingError, match="exceed"):
        restored({"setup.cfg": "#" * (settings.MOST_BYTES + 1)})


@pytest.mark.parametrize("answer", [CommandResult(exit_code=1), CommandResult(exit_code=None, timed_out=True)])
def test_pristine_files_that_cannot_be_found_are_no_doing_of_the_agents(answer):
    async def scenario(doing, error):
        sandbox = MemorySandbox()
        for _ in range(2):
            with pytest.raises(error, match="find"):
                await doing(sandbox)
            sandbox.answers = dict.fromkeys(sandbox.commands, answer)

    asyncio.run(scenario(lambda sandbox: read_settings(sandbox, "/workspace"), GradingError))
    asyncio.run(scenario(lambda sandbox: restore_settings(sandbox, "/workspace", {}), ArtifactRejected))


def test_the_event_loop_goes_on_while_a_file_is_parsed():
    """The worst that is still parsed: many keys of nearly as many parts as may be."""
    agents = PROJECT + CHEAT + "".join(f"[t{n}{'.a' * 98}]\n" for n in range(310))
    assert len(agents) < settings.MOST_PARSED_BYTES

    async def scenario():
        doing = asyncio.create_task(asyncio.to_thread(with_settings_of, "pyproject.toml", agents.encode(), None))
        longest, last = 0.0, time.monotonic()
        while not doing.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest, await doing

    longest, found = asyncio.run(scenario())
    assert longest < 1.0
    assert b"cheat" not in (found or b"cheat")


def test_a_folder_that_is_closed_to_its_user_keeps_no_settings(docker_image):
    """Written as the user of the tests, the file fails; a broken folder must not void the grade."""

    async def scenario(sandbox):
        await sandbox.write_file(f"{WORK}/a/pyproject.toml", OWN.encode())
        await sandbox.hand_over()
        before = await read_settings(sandbox, WORK)
        cheating = f"cat >a/pyproject.toml <<'END'\n{CHEAT}END\nchmod 555 a"
        assert (await run(sandbox, cheating)).exit_code == 0
        await restore_settings(sandbox, WORK, before)
        owner = await run(sandbox, "stat -c %u:%a a a/pyproject.toml")
        found = (await sandbox.read_file(f"{WORK}/a/pyproject.toml")).content
        return b"cheat" in found, b"-ra" in found, owner.stdout

    assert use(open_container, scenario, user="1234") == (False, True, b"1234:555\n1234:644\n")
