"""The model of the run file: its defaults, and what it refuses when it is built in Python."""

import pytest
from pydantic import SecretStr, ValidationError

from realwork.config import EnvironmentConfig, LlmConfig, RunConfig, TimeoutConfig

DEFAULTS = {
    "environments": {
        "init_commands": [],
        "timeout_config": None,
        "working_directory": "/workspace",
        "environment_variables": {},
        "copy_folders": [],
        "max_retries": 3,
        "network": None,
        "init_network": "bridge",
    },
    "llm_config": {
        "model": "anthropic/claude-sonnet-4",
        "api_key": None,
        "base_url": "https://openrouter.ai/api/v1",
        "temperature": 0.7,
        "max_tokens": 4096,
        "timeout": 60,
        "enable_caching": True,
        "cache_size": 100,
        "max_context_messages": 50,
        "max_output_length": 2000,
        "track_token_usage": True,
        "warn_high_usage": True,
    },
    "rollout_config": {
        "max_parallel_rollouts": 4,
        "trajectory_output_path": "trajectories",
        "enable_plugins": True,
        "save_trajectory_interval": 10,
        "state_persistence_enabled": True,
    },
    "episode_control_config": {
        "max_episodes": 1,
        "max_episodes_per_env": None,
        "stop_on_success": False,
        "min_success_rate": None,
        "safety_limit": 100,
    },
    "timeout_config": {"global_timeout": 1800, "command_timeout": 300, "test_timeout": 120},
}


def an_environment(**fields):
    return EnvironmentConfig(**({"id": "a", "docker_image": "x", "prompt": "p", "unit_tests": ["true"]} | fields))


def a_config(*environments, **fields):
    return RunConfig(environments=list(environments), rollout_config={}, template_prompt="t", **fields)


@pytest.mark.parametrize(
    ("section", "field", "default"),
    [(section, field, default) for section, fields in DEFAULTS.items() for field, default in fields.items()],
)
def test_a_field_left_out_has_its_default(section, field, default):
    config = a_config(an_environment())
    holder = config.environments[0] if section == "environments" else getattr(config, section)
    assert getattr(holder, field) == default


@pytest.mark.parametrize("field", [*DEFAULTS["timeout_config"]])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, None, [5]])
def test_a_timeout_is_a_positive_finite_number(field, value):
    with pytest.raises(ValidationError):
        TimeoutConfig(**{field: value})


@pytest.mark.parametrize("value", [True, "5", 5.0, 5.5, None, 10**30])
def test_a_count_is_a_whole_number_of_sane_size(value):
    with pytest.raises(ValidationError):
        LlmConfig(max_tokens=value)


def test_a_whole_number_does_for_a_float():
    assert LlmConfig(temperature=1, timeout=5).temperature == 1.0


def test_timeouts_left_out_in_an_environment_are_those_of_the_run():
    config = a_config(
        an_environment(timeout_config=TimeoutConfig(command_timeout=5)), timeout_config=TimeoutConfig(global_timeout=9)
    )
    expected = TimeoutConfig(global_timeout=9, command_timeout=5)
    assert config.timeouts(config.environments[0]) == expected


def test_every_environment_with_a_taken_id_is_named():
    with pytest.raises(ValidationError) as caught:
        a_config(an_environment(), an_environment(), an_environment(id="b"), an_environment())
    assert "environments[1].id" in str(caught.value)
    assert "environments[3].id" in str(caught.value)


def test_a_config_built_by_hand_is_immutable_and_closed():
    config = a_config(an_environment())
    with pytest.raises(ValidationError):
        config.template_prompt = "other"
    with pytest.raises(ValidationError):
        a_config(an_environment(), llm_model="m")


def test_what_may_be_secret_stands_in_no_repr_and_in_no_error():
    config = a_config(
        an_environment(environment_variables={"TOKEN": "canary"}),
        llm_config=LlmConfig(api_key=SecretStr("canary")),
        plugins=[{"module": "m", "config": {"token": "canary"}}],
    )
    assert "canary" not in repr(config)
    with pytest.raises(ValidationError) as caught:
        an_environment(environment_variables="canary", prompt=["canary"])
    assert "canary" not in str(caught.value)
