"""Token segments: what is merged, what begins a new one, and how they come to lie beside their trajectories."""

import asyncio
import json
import random
import shutil
from datetime import UTC, datetime

import pytest

from realwork.dataset.arrow import samples
from realwork.dataset.commits import make_commit
from realwork.dataset.parts import SAMPLES_FOLDER, part_files
from realwork.dataset.run_directory import open_run
from realwork.dataset.samples import sample_rows, segments
from realwork.dataset.schema import SAMPLE_SCHEMA
from realwork.dataset.store import TrajectoryStore
from realwork.errors import StoreError
from realwork.model.tokens import step_tokens
from realwork.types import Step, TokenIds

from .records import failed, graded

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def steps_of(*told, versions=()):
    """Steps with these prompts and completions, null for one of which no ids are known."""
    steps, before = [], ()
    for index, ids in enumerate(told):
        version = versions[index] if versions else None
        tokens = None
        if ids is not None:
            prompt, completion = map(tuple, ids)
            logprobs = tuple(-0.5 * (one + 1) for one in range(len(completion)))
            tokens = step_tokens(before, TokenIds(prompt=prompt, completion=completion, logprobs=logprobs))
        before = () if ids is None else (*prompt, *completion)
        steps.append(Step(index=index, message_index=2, started_at=NOW, tokens=tokens, policy_version=version))
    return tuple(steps)


def seen(*told):
    """Ids, mask and prompt length of each segment."""
    found = segments(graded(steps=steps_of(*told)))
    return [(segment.input_ids, segment.completion_mask, segment.prompt_length) for segment in found]


def test_prompts_that_go_on_become_one_segment():
    assert seen(([1, 2], [3]), ([1, 2, 3, 4], [5, 6])) == [([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1], 2)]


def test_a_prompt_that_does_not_go_on_begins_a_new_segment():
    drifted = seen(([1, 2], [3, 4]), ([1, 2, 3, 9, 7], [5]), ([1, 2, 3, 9, 7, 5, 8], [6]))
    assert drifted == [
        ([1, 2, 3, 4], [0, 0, 1, 1], 2),
        ([1, 2, 3, 9, 7, 5, 8, 6], [0, 0, 0, 0, 0, 1, 0, 1], 5),
    ]


def test_a_prompt_that_is_only_the_beginning_of_what_was_before_is_a_new_segment():
    shorter = seen(([1, 2], [3, 4]), ([1, 2, 3], [5]))
    assert shorter == [([1, 2, 3, 4], [0, 0, 1, 1], 2), ([1, 2, 3, 5], [0, 0, 0, 1], 3)]


def test_the_versions_of_a_segment_are_the_lowest_and_the_highest():
    ids = ([1], [2]), ([1, 2], [3]), ([1, 2, 3], [4])
    (row,) = sample_rows(graded(steps=steps_of(*ids, versions=("v9", "v3", "v10"))))
    assert (row["policy_version_min"], row["policy_version_max"]) == ("v3", "v10")


def test_a_step_without_ids_parts_what_is_around_it():
    assert seen(([1], [2]), None, ([1, 2, 3], [4])) == [([1, 2], [0, 1], 1), ([1, 2, 3, 4], [0, 0, 0, 1], 3)]
    assert seen(None, None) == []


def test_every_id_that_was_written_stands_once_under_a_mask_with_its_logprob():
    draw = random.Random(3)
    for _ in range(200):
        told, before = [], []
        for _ in range(draw.randint(1, 8)):
            kept = draw.choice([len(before), len(before), draw.randint(0, len(before))])
            prompt = before[:kept] + [draw.randint(0, 5) for _ in range(draw.randint(1, 4))]
            completion = [draw.randint(0, 5) for _ in range(draw.randint(1, 4))]
            told.append(draw.choice([(prompt, completion)] * 5 + [None]))
            before = prompt + completion if told[-1] else []
        steps = steps_of(*told)
        found = segments(graded(steps=steps))
        written = [
            (one, logprob)
            for segment in found
            for one, mask, logprob in zip(segment.input_ids, segment.completion_mask, segment.logprobs, strict=True)
            if mask
        ]
        told_of = [step.tokens for step in steps if step.tokens]
        expected = [pair for each in told_of for pair in zip(each.completion, each.logprobs, strict=True)]
        assert written == expected
        for segment in found:
            last = told[segment.steps[-1].index]
            assert segment.input_ids == [*last[0], *last[1]]
            assert segment.input_ids[: segment.prompt_length] == list(told[segment.steps[0].index][0])


def commit(directory, *records):
    async def committed():
        async with TrajectoryStore(directory) as store:
            for record in records:
                await store.commit(make_commit(record))

    asyncio.run(committed())


TOKENS = steps_of(([1, 2], [3]), ([1, 2, 3, 4], [5, 6]), ([9], [8]), versions=("7", "8", "8"))
SAMPLING = json.dumps({"temperature": 0.5})


def test_the_rows_stand_beside_their_trajectories_with_the_ids_that_join_them(tmp_path):
    open_run(tmp_path, "{}")
    told = graded(steps=TOKENS, sampling_params=SAMPLING, model="m", passed=1)
    commit(tmp_path, graded(1), told, failed(2, steps=TOKENS))
    first, second, *others = samples(tmp_path).to_table().to_pylist()
    assert samples(tmp_path).schema.equals(SAMPLE_SCHEMA)
    assert {name: first[name] for name in ("trajectory_id", "group_id", "sample_index", "segment_index")} == {
        "trajectory_id": told.spec.trajectory_id,
        "group_id": told.spec.group_id,
        "sample_index": 0,
        "segment_index": 0,
    }
    assert (first["input_ids"], first["completion_mask"]) == ([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])
    assert (first["logprobs"], first["prompt_length"]) == ([0.0, 0.0, -0.5, 0.0, -0.5, -1.0], 2)
    assert (first["reward"], first["reward_valid"], first["advantage"], first["temperature"]) == (0.5, True, None, 0.5)
    assert (first["policy_version_min"], first["policy_version_max"], first["model"]) == ("7", "8", "m")
    assert (first["first_step"], first["last_step"], second["first_step"], second["last_step"]) == (0, 1, 2, 2)
    assert [(row["reward"], row["reward_valid"]) for row in others] == [(None, False)] * 2


def test_where_no_ids_were_told_there_are_no_samples_and_the_card_tells_of_none(tmp_path):
    open_run(tmp_path, "{}")
    commit(tmp_path, graded())
    assert not (tmp_path / SAMPLES_FOLDER).exists()
    assert "config_name: samples" not in (tmp_path / "README.md").read_text()
    assert samples(tmp_path).count_rows() == 0
    commit(tmp_path, graded(1, steps=TOKENS))
    card = (tmp_path / "README.md").read_text()
    assert "- config_name: samples\n  data_files: samples/part-*.parquet\n---\n" in card
    assert samples(tmp_path).count_rows() == 2


def test_samples_of_a_part_that_was_never_written_are_removed(tmp_path):
    open_run(tmp_path, "{}")
    commit(tmp_path, graded(steps=TOKENS))
    (first,) = part_files(tmp_path, SAMPLES_FOLDER)
    shutil.copy(first, first.with_name("part-000002.parquet"))
    commit(tmp_path, graded(1))
    assert samples(tmp_path).count_rows() == 2
    commit(tmp_path, graded(2, steps=TOKENS))
    assert {row["sample_index"] for row in samples(tmp_path).to_table().to_pylist()} == {0, 2}


def test_a_part_that_cannot_be_written_leaves_no_samples(tmp_path):
    async def committed():
        async with TrajectoryStore(tmp_path) as store:
            (tmp_path / "trajectories" / "part-000001.parquet").mkdir()
            await store.commit(make_commit(graded(steps=TOKENS)))
            with pytest.raises(StoreError):
                await store.seal()
            (tmp_path / "trajectories" / "part-000001.parquet").rmdir()
            assert part_files(tmp_path, SAMPLES_FOLDER) == []

    asyncio.run(committed())
    open_run(tmp_path, "{}")
    assert samples(tmp_path).count_rows() == 2
