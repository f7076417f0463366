"""References to environment variables in a run file: `${NAME}`, and `$${NAME}` for the text itself.

They are replaced where a setting may differ from machine to machine: in `llm_config`, `trajectory_output_path`, the
`config` and `environment_variables` of plugins, and an environment's `docker_image`, folders and
`environment_variables`. They are text in prompts, commands and tests, where `${NAME}` is the shell's.
"""

from collections.abc import Mapping

from realwork.references import REFERENCE_OR_ESCAPE
from realwork.runfile.read import Loc
from realwork.runfile.secrets import is_secret_name


def takes_references(loc: Loc) -> bool:
    """Whether a text at `loc` has its references replaced; `llm_config.api_key` has rules of its own."""
    match loc:
        case ("llm_config", "headers" | "base_url", _):
            return True
        case ("llm_config", name):
            return name != "api_key"
        case ("rollout_config", "trajectory_output_path") | ("environments", int(), "docker_image"):
            return True
        case ("environments", int(), "copy_folders" | "test_folders" | "environment_variables", _):
            return True
        case ("plugins", int(), "config" | "environment_variables", *_):
            return True
        case _:
            return False


def referred_secrets(text: str, environ: Mapping[str, str]) -> set[str]:
    """The values of the variables in `text` whose names say that they are secret."""
    names = [found[1] for found in REFERENCE_OR_ESCAPE.finditer(text) if found[1]]
    return {environ[name] for name in names if name in environ and is_secret_name(name)}
