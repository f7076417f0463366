"""A run file as the settings that its rollouts share, which travel to other processes; no secret does with them."""

from collections.abc import Callable
from pathlib import Path

from realwork.config import SCRIPTED_PREFIX
from realwork.distributed.hooks import pack
from realwork.environment import PackedFolder
from realwork.errors import InputError
from realwork.model.scripted import load_script
from realwork.plugins.loading import load_plugins
from realwork.record import RolloutSettings
from realwork.runfile import RunFile
from realwork.sandbox import labels
from realwork.sandbox.files import pack_folder
from realwork.secret import Secret


def shared_settings(run_file: RunFile) -> RolloutSettings:
    """What every rollout of `run_file` shares.

    Raises:
        InputError: with every problem of its plugins or folders.
    """
    config = run_file.config
    llm = config.llm_config
    script = load_script(Path(llm.model.removeprefix(SCRIPTED_PREFIX))) if llm.is_scripted else None
    packed = _packer(run_file)
    return RolloutSettings(
        config=config.model_copy(update={"llm_config": llm.model_copy(update={"api_key": None})}),
        key=run_file.key,
        script=script,
        folders={environment_id: packed(each.copied) for environment_id, each in run_file.folders.items()},
        test_folders={environment_id: packed(each.for_tests) for environment_id, each in run_file.folders.items()},
        environments_json={each.id: run_file.environment_json(each.id) for each in config.environments},
        plugins=pack(load_plugins(config, folder=run_file.path.parent)),
        driver=labels.this_process().as_label(),
    )


def _packer(run_file: RunFile) -> Callable[[tuple[Path, ...]], tuple[PackedFolder, ...]]:
    """What packs folders of `run_file`, each once, however many environments name it.

    Raises:
        InputError: with every problem of every folder.
    """
    named = [folder for each in run_file.folders.values() for folder in (*each.copied, *each.for_tests)]
    packed: dict[Path, PackedFolder] = {}
    problems: list[str] = []
    for folder in dict.fromkeys(named):
        try:
            packed[folder] = PackedFolder(name=folder.name, content=pack_folder(folder, folder.name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(f"{run_file.path}: its folders cannot be copied", problems=problems)
    return lambda folders: tuple(packed[folder] for folder in folders)


def given_key(run_file: RunFile) -> Secret | None:
    """The key, if other processes cannot find it by themselves."""
    key = run_file.config.llm_config.api_key
    return Secret(key.get_secret_value()) if key is not None and run_file.key.kind == "given" else None
