import sys
import uuid

import pytest

from realwork.plugins.checking import check_plugins
from realwork.plugins.hooks import START_S, longest_hooks_s
from realwork.plugins.loading import load_plugins
from tests.plugins.conftest import config
from tests.plugins.modules import EXAMPLE, filtering, managing, module, watching

KEEP = "return actions"


def names(loaded):
    return [each.plugin.name for each in loaded]


@pytest.mark.parametrize("start", ["", "from typing import Any\n", "from __future__ import annotations\n"])
def test_the_documented_example_loads_as_it_stands_and_with_its_import(plugins, start):
    (example,) = plugins.users(start + EXAMPLE)
    assert (example.plugin.name, example.plugin.version, example.plugin.plugin_type) == (
        "custom_analyzer",
        "1.0.0",
        "trajectory_analyzer",
    )


def test_only_annotations_may_use_a_name_that_was_not_imported(plugins):
    (problem,) = plugins.problems(EXAMPLE + "\nx: Any = 1\ny = Any\n")
    assert "cannot be imported: name 'Any' is not defined (NameError" in problem


def test_the_built_ins_are_there_unless_plugins_are_switched_off(plugins):
    assert names(plugins.load()) == ["safety_filter", "trajectory_analyzer"]
    assert plugins.load(enabled=False) == []


def test_a_manager_that_is_built_in_acts_only_when_it_is_configured(plugins):
    loaded = plugins.load({"module": "performance_rollout_manager", "config": {"min_episodes": 2}})
    assert names(loaded) == ["safety_filter", "trajectory_analyzer", "performance_rollout_manager"]


def test_an_entry_with_the_name_of_a_built_in_configures_it(plugins):
    assert len(plugins.load({"module": "safety_filter", "config": {"blocked_commands": ["curl"]}})) == 2
    (problem,) = plugins.problems({"module": "safety_filter", "config": {"blocked": []}})
    assert problem.startswith("plugin safety_filter: the constructor of SafetyFilter in safety_filter.py does not fit")
    assert "'blocked'" in problem


def test_the_config_goes_to_the_constructor_in_the_way_it_takes_it(plugins):
    keywords = filtering("a", KEEP) + "\n    def __init__(self, depth=1):\n        self.got = depth\n"
    whole = filtering("b", KEEP) + "\n    def __init__(self, config=None):\n        self.got = config\n"
    entries = [plugins.entry(text, config={"depth": 3}) for text in (keywords, whole, filtering("c", KEEP))]
    first, second, third = plugins.users(*entries)
    assert (first.plugin.got, second.plugin.got, third.plugin.config) == (3, {"depth": 3}, {"depth": 3})


def test_every_concrete_class_of_a_module_is_loaded_also_one_from_elsewhere(plugins):
    other = plugins.write(filtering("other", KEEP))
    text = f"from {other} import Plugin as Other\n" + filtering("own", KEEP)
    assert sorted(names(plugins.users(text))) == ["other", "own"]


def test_every_problem_is_named_with_its_plugin_and_the_original_error(plugins):
    text = "class Half(ActionFilterPlugin):\n    name = 'half'\n"
    entries = [
        "no_such_module_anywhere",
        plugins.write("import no_such_dependency\n"),
        plugins.write("1 / 0\n"),
        plugins.write("import sys\nsys.exit(3)\n"),
        plugins.write("def broken(:\n"),
        plugins.write("from realwork.plugins import *\n" + text),
        plugins.write(filtering("sync", KEEP).replace("async def", "def")),
        plugins.write(filtering("x", KEEP) + "\n    def __init__(self):\n        raise ValueError('no licence')\n"),
        plugins.write(watching("y", "no_such_hook", "return context")),
        plugins.write(filtering("safety_filter", KEEP)),
    ]
    problems = plugins.problems(*entries)
    said = [
        "Put it beside the run file",
        "cannot be imported: No module named 'no_such_dependency'",
        "cannot be imported: division by zero (ZeroDivisionError",
        "its code ends the process when it is loaded (SystemExit: 3)",
        "SyntaxError",
        "Half does not define filter_actions, supported_hooks, version",
        "filter_actions must be an 'async def'",
        "no licence (ValueError",
        "supported_hooks has 'no_such_hook', which is no hook; there are pre_rollout, post_rollout, pre_episode,",
        "another plugin with the name 'safety_filter', in the module safety_filter",
    ]
    assert len(problems) == len(said)
    for entry, problem, part in zip(entries, problems, said, strict=True):
        assert problem.startswith(f"plugin {entry}: ")
        assert part in problem


@pytest.mark.parametrize("path", ["{}.py", "./{}", "./{}.py", "{}/"])
def test_a_path_in_the_place_of_a_module_is_told_the_dotted_name(plugins, path):
    name = plugins.write(filtering("a", KEEP))
    (problem,) = plugins.problems(path.format(name))
    assert problem.endswith(f": that is the path of a file; write the dotted name: {name}")


def test_a_module_in_a_folder_has_the_name_of_the_folder_in_front(plugins):
    (problem,) = plugins.problems("judges/strict.py")
    assert problem.endswith("write the dotted name: judges.strict")


def test_a_misspelt_module_is_asked_whether_one_that_is_there_was_meant(plugins):
    (plugins.folder / "strict_judge.py").write_text(filtering("a", KEEP))
    (plugins.folder / "judges").mkdir()
    (plugins.folder / "judges" / "lenient.py").write_text(filtering("b", KEEP))
    problems = plugins.problems("safty_filter", "strict_jugde", "judges.lenent", "unlike_any")
    meant = [part.partition("Did you mean ")[2].partition("?")[0] for part in problems]
    assert meant == ["'safety_filter'", "'strict_judge'", "'judges.lenient'", ""]


def test_a_module_with_a_name_of_python_s_own_is_told_so(plugins):
    (plugins.folder / "platform.py").write_text(filtering("a", KEEP))
    assert plugins.problems("platform") == [
        "plugin platform: 'platform' is a module of Python's own; give yours another name"
    ]


def test_a_name_that_is_no_text_and_hooks_that_are_no_list_are_plain_sentences(plugins):
    number = filtering("a", KEEP).replace("name = 'a'", "name = 5")
    text = filtering("b", KEEP).replace("supported_hooks = []", "supported_hooks = 'pre_action'")
    first, second = plugins.problems(number, text)
    assert first.endswith(": the name of Plugin must be text, not 5")
    assert second.endswith(": b: supported_hooks must be a list of hooks, not 'pre_action'")


def test_an_argument_that_the_config_does_not_have_is_named_with_the_user_s_file(plugins):
    name = plugins.write(filtering("a", KEEP) + "\n    def __init__(self, depth):\n        pass\n")
    (problem,) = plugins.problems(name)
    assert problem.endswith(
        f"the constructor of Plugin in {name}.py does not fit the entry's config: missing a required argument: 'depth'"
    )


def test_the_path_for_imports_is_as_before_after_loading(plugins):
    before = list(sys.path)
    plugins.load(EXAMPLE)
    assert sys.path == before


def test_a_plugin_that_is_not_enabled_is_left_out(plugins):
    assert plugins.users(filtering("off", KEEP) + "\n    enabled = False\n") == []


def test_one_that_cannot_say_whether_it_is_enabled_is_named(plugins):
    text = filtering("odd", KEEP) + "\n    @property\n    def enabled(self):\n        return self.no_such\n"
    (problem,) = plugins.problems(text)
    assert "it does not say whether it is enabled" in problem


def test_the_hook_that_its_kind_answers_need_not_be_named(plugins):
    loaded = plugins.users(filtering("a", KEEP), managing("b", "return True", "return {}"))
    assert [(each.name, each.hooks) for each in check_plugins(loaded)] == [
        ("a", ("pre_action",)),
        ("b", ("post_episode",)),
    ]


def test_the_times_of_built_ins_count_among_those_that_plugins_may_take():
    assert longest_hooks_s(config()) == longest_hooks_s(config({"module": "safety_filter", "timeout": 2.0})) == 7 * 30.0
    both = [{"module": name, "timeout": 2.0} for name in ("safety_filter", "trajectory_analyzer")]
    assert longest_hooks_s(config(*both)) == 7 * 2.0
    assert longest_hooks_s(config(enabled=False)) == 0.0
    assert longest_hooks_s(config("mine")) == 7 * 30.0 + 5 * START_S


def test_the_priority_of_the_run_file_stands_above_that_of_the_class(plugins):
    text = filtering("a", KEEP) + "\n    priority = 7\n"
    assert plugins.users(text)[0].priority == 7
    assert plugins.users(plugins.entry(text, priority=0))[0].priority == 0


def test_importing_the_classes_does_not_import_ray():
    import subprocess

    code = "import realwork.plugins.dispatch, realwork.plugins.loading, sys; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_needs_no_plugin_of_its_own_to_be_named_in_the_problem(plugins):
    (problem,) = plugins.problems(plugins.write("x = 1\n"))
    assert problem.endswith("there is no plugin class in the module")


def test_helpers_of_the_user_travel_with_the_plugin(plugins):
    helper = plugins.write("def helped():\n    return 1\n")
    own = plugins.write(f"import {helper}, json\n" + module("BasePlugin", "p", "", hooks=["pre_test"]))
    for _ in range(2):
        (loaded,) = plugins.users({"module": own})
        assert {helper, own} <= set(loaded.modules)
        assert not {"json", "pytest", "realwork.plugins.base"} & set(loaded.modules)


def test_a_name_means_the_file_of_the_folder_that_is_loaded_from(tmp_path):
    common = f"judge_{uuid.uuid4().hex}"
    for place in ("one", "two"):
        (tmp_path / place / common).mkdir(parents=True)
        (tmp_path / place / f"{common}_helper.py").write_text(f"NAME = {place!r}\n")
        text = filtering("NAME", KEEP).replace("'NAME'", "NAME")
        (tmp_path / place / common / "inner.py").write_text(f"from {common}_helper import NAME\n{text}")
    loaded = [load_plugins(config(f"{common}.inner"), folder=tmp_path / place)[-1] for place in ("one", "two", "one")]
    assert names(loaded) == ["one", "two", "one"]
