"""Problems: what a mistake in a run file is called."""

import pytest

BAD = [
    # Unknown and missing keys
    ("environments.0.unit_test", ["true"], "environments[0].unit_test: unknown key. Did you mean 'unit_tests'?"),
    ("enviroments", [], "enviroments: unknown key. Did you mean 'environments'?"),
    ("llm_config.maxTokens", 5, "llm_config.maxTokens: unknown key. Did you mean 'max_tokens'?"),
    ("environments.1.model", "m", "environments[1].model: unknown key. 'model' belongs to llm_config."),
    ("max_tokens", 5, "max_tokens: unknown key. 'max_tokens' belongs to llm_config."),
    ("llm_config.prompt", "p", "llm_config.prompt: unknown key. 'prompt' belongs to an entry of environments."),
    ("rollout_config.plugins", [], "rollout_config.plugins: unknown key. 'plugins' belongs to the root of the file."),
    ("llm_config.output_path", "o", "llm_config.output_path: unknown key. It is called rollout_config.traj"),
    ("zzz", 1, "zzz: unknown key."),
    ("rollout_config.a b", 1, 'rollout_config["a b"]: unknown key.'),
    ("llm_config.prices", {"m": 5}, "llm_config.prices.m: expected an object, found"),
    (
        "llm_config.prices",
        {"m": {"input": -1, "output": 1}},
        "llm_config.prices.m.input: expected a number of at least",
    ),
    ("llm_config.prices", {"m\nn": {"input": 1, "output": 1}}, 'llm_config.prices["m'),
    ("llm_config.headers", {"x\ny": "1"}, 'llm_config.headers["x'),
    ("llm_config.prices", {"m": {"input": 1}}, "llm_config.prices.m.output: missing. It is required"),
    (
        "llm_config.prices",
        {"plugins": {"output": 1, "input": 1, "cashed": 2}},
        "llm_config.prices.plugins.cashed: unkn",
    ),
    ("environments.0.prompt", ..., "environments[0].prompt: missing. It is required: the first user message."),
    ("template_prompt", ..., "template_prompt: missing. It is required: the system message."),
    ("rollout_config", ..., "rollout_config: missing. It is required"),
    ("environments", ..., "environments: missing. It is required"),
    # Types
    ("environments", {}, "environments: expected a list, found an object"),
    ("environments.0", "text", "environments[0]: expected an object, found text"),
    ("environments.0.unit_tests", "pytest", "environments[0].unit_tests: expected a list, found 'pytest'"),
    ("environments.0.unit_tests", [["a"]], "environments[0].unit_tests[0]: expected text, found a list"),
    ("environments.0.docker_image", 3.12, "environments[0].docker_image: expected text, found 3.12: put it in quotes"),
    (
        "environments.0.environment_variables",
        {"A": 1},
        "environments[0].environment_variables.A: expected text, found a n",
    ),
    (
        "environments.0.environment_variables",
        {"A=": "1"},
        'environments[0].environment_variables["A="]: the name of an',
    ),
    ("environments.0.network", "host", "environments[0].network: cannot be 'host', by which an agent would share"),
    ("environments.0.init_network", "container:db", "environments[0].init_network: cannot be 'container:db'"),
    ("sandbox_config.network", "host", "sandbox_config.network: cannot be 'host'"),
    ("environments.0.working_directory", "app", "environments[0].working_directory: must be an absolute path"),
    ("environments.0.id", "a\nb", "environments[0].id: must not contain line breaks or other control characters"),
    ("environments.0.id", "x" * 201, "environments[0].id: expected at most 200 characters, found 'xxx"),
    (
        "episode_control_config",
        {"max_episodes": 8, "group_size": 3},
        (
            "episode_control_config.group_size: 8 episodes of an environment cannot be divided into groups of 3: "
            "let max_episodes be a multiple of group_size"
        ),
    ),
    (
        "episode_control_config",
        {"max_episodes": 8, "max_episodes_per_env": 6, "group_size": 4},
        (
            "episode_control_config.group_size: 6 episodes of an environment cannot be divided into groups of 4: "
            "let max_episodes_per_env be a multiple of group_size"
        ),
    ),
    (
        "episode_control_config",
        {"max_episodes": 200, "group_size": 8},
        (
            "episode_control_config.group_size: 100 episodes of an environment cannot be divided into groups of 8: "
            "let safety_limit be a multiple of group_size"
        ),
    ),
    ("episode_control_config.group_size", 0, "episode_control_config.group_size: expected a number greater than 0"),
    (
        "episode_control_config.max_open_groups",
        0,
        "episode_control_config.max_open_groups: expected a number greater than 0",
    ),
    ("rollout_config.cpu_slots", 0, "rollout_config.cpu_slots: expected a number greater than 0, found 0"),
    ("environments.0.max_retries", -1, "environments[0].max_retries: expected a number of at least 0, found -1"),
    ("llm_config", None, "llm_config: expected an object, found null"),
    ("llm_config.temperature", 3, "llm_config.temperature: expected a number of at most 2, found 3"),
    ("llm_config.temperature", True, "llm_config.temperature: expected a number, found true"),
    (
        "llm_config.temperature",
        "0.7",
        "llm_config.temperature: expected a number, found '0.7': write it without quotes",
    ),
    (
        "llm_config.max_tokens",
        "5",
        "llm_config.max_tokens: expected a whole number, found '5': write it without quotes",
    ),
    ("llm_config.max_tokens", True, "llm_config.max_tokens: expected a whole number, found true"),
    ("llm_config.max_tokens", 5.5, "llm_config.max_tokens: expected a whole number, found 5.5"),
    ("llm_config.max_tokens", 2**40, "llm_config.max_tokens: expected a number of at most 2147483647"),
    (
        "llm_config.enable_caching",
        "true",
        "llm_config.enable_caching: expected true or false, found 'true': write it w",
    ),
    (
        "sandbox_config.kind",
        "podman",
        "sandbox_config.kind: expected one of 'docker', 'local' or 'memory', found 'podman'",
    ),
    ("plugins", ["m", 5], "plugins[1]: expected an object, found a number"),
    ("plugins", [""], "plugins[0].module: must not be empty"),
    # Empty
    ("environments", [], "environments: must not be empty: at least one entry is needed"),
    ("environments.0.unit_tests", [], "environments[0].unit_tests: must not be empty: at least one entry is needed"),
    ("environments.0.prompt", " \n", "environments[0].prompt: must not be empty"),
    ("template_prompt", "", "template_prompt: must not be empty"),
    # Timeouts
    (
        "timeout_config.global_timeout",
        -5,
        "timeout_config.global_timeout: expected a number of seconds greater than 0, found -5",
    ),
    (
        "timeout_config.test_timeout",
        0,
        "timeout_config.test_timeout: expected a number of seconds greater than 0, found 0",
    ),
    ("timeout_config.test_timeout", float("nan"), "timeout_config.test_timeout: expected a finite number, found NaN"),
    (
        "timeout_config.command_timeout",
        "5m",
        "timeout_config.command_timeout: expected a number of seconds, found '5m'",
    ),
    (
        "environments.1.timeout_config",
        {"test_timeout": "9"},
        "environments[1].timeout_config.test_timeout: expected a n",
    ),
    ("llm_config.timeout", 0, "llm_config.timeout: expected a number of seconds greater than 0, found 0"),
    # base_url
    ("llm_config.base_url", "localhost:8000/v1", "llm_config.base_url: must begin with http:// or https://"),
    ("llm_config.base_url", "", "llm_config.base_url: must begin with http:// or https://"),
    (
        "llm_config.base_url",
        "https://h/v1/chat/completions",
        "llm_config.base_url: must end before '/chat/completions'",
    ),
    (
        "llm_config.base_url",
        "https://h/v1/chat/completions/",
        "llm_config.base_url: must end before '/chat/completions'",
    ),
    ("llm_config.base_url", "https://", "llm_config.base_url: must name a host"),
    ("llm_config.base_url", "https://h:port/v1", "llm_config.base_url: must be a URL"),
    ("llm_config.base_url", "https://me:canary@h/v1", "llm_config.base_url: must hold no user, password"),
]


@pytest.mark.parametrize(("where", "value", "said"), BAD, ids=[f"{where}={value!r:.20}" for where, value, _ in BAD])
def test_a_mistake_is_one_plain_sentence_with_its_place(run_files, where, value, said):
    problems = run_files.problems((where, value))
    assert len([one for one in problems if one.startswith(said)]) == 1
    assert not any(
        word in problem for problem in problems for word in ("pydantic", "Input should", "canary", "Value err")
    )


def test_every_environment_with_a_taken_id_is_named(run_files):
    environment = run_files.document()["environments"][0]
    assert run_files.problems(("environments", [environment, environment, environment | {"id": "b"}, environment])) == [
        "environments[1].id: 'first' is the id of environments[0] already; ids must be unique",
        "environments[3].id: 'first' is the id of environments[0] already; ids must be unique",
    ]


def test_a_misspelled_required_key_is_one_problem_and_its_value_is_checked_under_its_own_name(run_files):
    problems = run_files.problems(("environments.0.unit_tests", ...), ("environments.0.unit_test", ["true", 5]))
    assert problems == [
        "environments[0].unit_test: unknown key. Did you mean 'unit_tests'?",
        "environments[0].unit_test[1]: expected text, found a number: put it in quotes",
    ]


def test_mistakes_of_every_kind_are_named_at_once(run_files):
    problems = run_files.problems(
        ("zzz", 1),
        ("environments.0.prompt", ""),
        ("environments.0.copy_folders", ["nowhere"]),
        ("environments.0.docker_image", "python:${UNSET}"),
        ("environments.1.id", "first"),
        ("timeout_config.test_timeout", -1),
        ("rollout_config.trajectory_output_path", "/dev/null/out"),
        environ={},
    )
    places = sorted(problem.partition(":")[0] for problem in problems)
    assert places == [
        "environments[0].copy_folders[0]",
        "environments[0].docker_image",
        "environments[0].prompt",
        "environments[1].id",
        "llm_config.api_key",
        "rollout_config.trajectory_output_path",
        "timeout_config.test_timeout",
        "zzz",
    ]


def test_a_wrong_timeout_of_the_run_is_not_named_again_in_each_environment(run_files):
    problems = run_files.problems(
        ("timeout_config.test_timeout", -1), ("environments.0.timeout_config", {"command_timeout": 5})
    )
    assert len(problems) == 1


def test_a_wrong_base_url_does_not_ask_for_a_key(run_files):
    assert len(run_files.problems(("llm_config.base_url", "localhost:8000"), environ={})) == 1


def test_the_message_counts_the_problems_and_names_the_file(run_files):
    with pytest.raises(Exception, match=r"run\.json: 2 problems"):
        run_files.load(("zzz", 1), ("yyy", 2))


def test_long_and_unprintable_values_are_shortened_and_escaped(run_files):
    [problem] = run_files.problems(("llm_config.max_tokens", "\x1b[31m" + "x" * 500))
    assert len(problem) < 150
    assert "\x1b" not in problem
