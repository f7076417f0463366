"""A run as a dataset of pyarrow; apart from the other readers, as pyarrow.dataset takes longest to load.

Guarantees: only complete part files are looked at.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from realwork.config import is_url
from realwork.dataset.fetched import folders_of_runs
from realwork.dataset.objects import Objects
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER
from realwork.dataset.read import parts_in
from realwork.dataset.schema import SAMPLE_SCHEMA, SCHEMA


def read(directory: Path | str) -> ds.Dataset:
    """The rows of a run, or of every run in a `trajectory_output_path`, in the order of their commits.

    A dataset keeps the footer of every part it has read; the functions below do not.

    Args:
        directory: or a URL of object storage.

    Raises:
        InputError: there is no run.
        StoreError: the objects of the URL cannot be listed.
    """
    if is_url(str(directory)):
        return _at_url(str(directory), FOLDER, SCHEMA)
    parts = [str(part.resolve()) for part in parts_in(Path(directory))]
    return ds.FileSystemDataset.from_paths(
        parts, schema=SCHEMA, format=ds.ParquetFileFormat(), filesystem=fs.LocalFileSystem()
    )


def samples(directory: Path | str) -> ds.Dataset:
    """The token segments of a run, or of every run in a `trajectory_output_path`; none where no token ids were told.

    Args:
        directory: or a URL of object storage.

    Raises:
        InputError: there is no run.
        StoreError: the objects of the URL cannot be listed.
    """
    if is_url(str(directory)):
        return _at_url(str(directory), SAMPLES_FOLDER, SAMPLE_SCHEMA)
    parts = [str(part.resolve()) for part in parts_in(Path(directory), SAMPLES_FOLDER)]
    return ds.FileSystemDataset.from_paths(
        parts, schema=SAMPLE_SCHEMA, format=ds.ParquetFileFormat(), filesystem=fs.LocalFileSystem()
    )


def _at_url(url: str, folder: str, schema: pa.Schema) -> ds.Dataset:
    objects = Objects(url)
    names = sorted(objects.sizes())
    beginnings = tuple(f"{run}/{folder}/part-".lstrip("/") for run in folders_of_runs(url, names))
    parts = [objects.path(name) for name in names if name.startswith(beginnings)]
    return ds.FileSystemDataset.from_paths(
        parts, schema=schema, format=ds.ParquetFileFormat(), filesystem=objects.files
    )
