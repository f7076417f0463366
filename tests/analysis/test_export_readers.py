"""The libraries that trainers read with take the exports as they are: datasets, and TRL's own checks where it is."""

import importlib.util
import json
import subprocess
import sys

import pytest

from realwork.analysis.export.formats import FORMATS, export
from realwork.tools import tool_schemas
from realwork.types import Message
from tests.dataset.records import call, graded, rich
from tests.e2e.command import clean_environment

from .records import make_run

SUFFIX = {"JSONL": ".jsonl", "Parquet": ".parquet"}
KINDS = {name: FORMATS[name].kind for name in ("trl-sft", "trl-dpo", "trl-kto", "verl", "skyrl")}

LOAD = """
import json, sys
import datasets
folder, files = sys.argv[1], json.loads(sys.argv[2])
def load(kind, file):
    return datasets.load_dataset(kind, data_files=f"{folder}/{file}", split="train", cache_dir=f"{folder}/cache")
"""
DATASETS = """
print(json.dumps({file: list(load(kind, file)) for file, kind in files.items()}, default=str))
"""
TRL = """
from pathlib import Path
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template, is_conversational
tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?", chat_template=template)
shown = {}
for file, kind in files.items():
    rows = list(load(kind, file))
    assert all(is_conversational(row) for row in rows)
    keys = ("messages", "prompt", "completion", "chosen", "rejected", "label")
    shown[file] = [
        apply_chat_template({key: row[key] for key in keys if key in row}, fast, tools=json.loads(row["tools"]))
        for row in rows
    ]
print(json.dumps(shown))
"""


def run(code, folder, files):
    """What a process with nothing but the readers has printed as JSON."""
    environment = clean_environment(HF_HUB_OFFLINE="1", HF_HOME=str(folder / "hf"), TQDM_DISABLE="1")
    command = [sys.executable, "-c", LOAD + code, folder, json.dumps(files)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every export that a trainer reads, of rollouts that called tools in different ways, or none."""
    folder = tmp_path_factory.mktemp("exports")
    tools = json.dumps(tool_schemas())
    calls = (call("a", "execute_command", '{"command": "ls -la"}'), call("b", "read_file", '{"filepath": "x.txt"}'))
    answers = [Message(role="tool", tool_call_id=each.id, name=each.function.name, content="found") for each in calls]
    messages = (*rich().messages[:2], Message(role="assistant", tool_calls=calls), *answers)
    idle = (*rich().messages[:2], Message(role="assistant", content="I will not."))
    records = [
        rich(0, reward=1.0, success=True, tools=tools),
        graded(1, passed=1, messages=messages, tools=tools, steps=rich().steps),
        graded(2, passed=0, messages=idle, tools=tools, steps=rich().steps[:1]),
    ]
    make_run(folder / "run", records)
    for name, kind in KINDS.items():
        export(folder / "run", name, folder / f"{name}{SUFFIX[kind]}")
    return folder


def test_datasets_loads_what_trainers_read_with_nothing_added_or_lost(folder):
    files = {f"{name}{SUFFIX[kind]}": {"JSONL": "json", "Parquet": "parquet"}[kind] for name, kind in KINDS.items()}
    loaded = run(DATASETS, folder, files)
    for name in ("trl-sft", "trl-dpo", "trl-kto"):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        assert loaded[f"{name}.jsonl"] == lines
    verl, skyrl = loaded["verl.parquet"][1], loaded["skyrl.parquet"][1]
    assert [message["role"] for message in verl["prompt"]] == ["system", "user"]
    assert verl["extra_info"]["tools_kwargs"]["execute_command"]["create_kwargs"]["environment_id"] == "calc"
    assert (verl["extra_info"]["index"], verl["extra_info"]["reward"]) == (1, 0.5)
    assert (skyrl["prompt"], skyrl["env_class"]) == (verl["prompt"], "realwork")
    assert skyrl["reward_spec"]["ground_truth"] == verl["reward_model"]["ground_truth"]


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed; its package asks for torch")
def test_trl_takes_the_exports_for_conversations_and_templates_show_the_calls(folder):
    shown = run(TRL, folder, {f"{name}.jsonl": "json" for name in ("trl-sft", "trl-dpo", "trl-kto")})
    whole = shown["trl-sft.jsonl"][1]["text"]
    assert '{"name": "execute_command", "arguments": {"command": "ls -la"}}' in whole
    assert '"description": "Run a shell command' in whole
    assert whole.count("<tool_response>") == 2
    (pair,) = shown["trl-dpo.jsonl"]
    assert pair["prompt"].endswith("<|im_start|>assistant\n")
    assert "Done." in pair["chosen"]
    assert "I will not." in pair["rejected"]
    assert [line["label"] for line in shown["trl-kto.jsonl"]] == [True, False, False]
