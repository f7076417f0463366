"""The settings of pytest in files that an agent may edit."""

import pytest

from realwork.testing.settings import with_settings_of

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


def test_a_file_that_is_none_is_left_for_pytest_to_refuse():
    assert changed("[tool.pytest\n", OWN) == "[tool.pytest\n"


def test_setup_cfg_is_treated_alike():
    agents = "[metadata]\nname = x\n[tool:pytest]\naddopts = -p cheat\npythonpath =\n  a\n  b\n[flake8]\nmax = 1\n"
    found = changed(agents, "[tool:pytest]\naddopts = -ra\n", "setup.cfg")
    assert found == (
        "[metadata]\nname = x\n[flake8]\nmax = 1\n[tool:pytest]\naddopts = -ra\npythonpath = \n    a\n    b\n"
    )
    assert changed("[metadata]\nname = x\n", None, "setup.cfg") == "[metadata]\nname = x\n"
