"""A run as a dataset of pyarrow; apart from the other readers, as pyarrow.dataset takes longest to load.

Guarantees: only complete part files are looked at.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from realwork.config import is_url
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER
from realwork.dataset.read import parts_in
from realwork.dataset.run_directory import RUN_FILE
from realwork.dataset.schema import SAMPLE_SCHEMA, SCHEMA
from realwork.errors import InputError


def read(directory: Path | str) -> ds.Dataset:
    """The rows of a run, or of every run in a `trajectory_output_path`, in the order of their commits.

    A dataset keeps the footer of every part it has read; the functions below do not.

    Args:
        directory: or the URL of a run in object storage.

    Raises:
        InputError: there is no run.
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
        directory: or the URL of a run in object storage.

    Raises:
        InputError: there is no run.
    """
    if is_url(str(directory)):
        return _at_url(str(directory), SAMPLES_FOLDER, SAMPLE_SCHEMA)
    parts = [str(part.resolve()) for part in parts_in(Path(directory), SAMPLES_FOLDER)]
    return ds.FileSystemDataset.from_paths(
        parts, schema=SAMPLE_SCHEMA, format=ds.ParquetFileFormat(), filesystem=fs.LocalFileSystem()
    )


def _at_url(url: str, folder: str, schema: pa.Schema) -> ds.Dataset:
    try:
        files, root = fs.FileSystem.from_uri(url)
        found = files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:
        raise InputError(f"{url} cannot be read: {error}") from error
    parts = sorted(each.path for each in found if each.path.startswith(f"{root}/{folder}/part-"))
    if not any(each.path == f"{root}/{RUN_FILE}" for each in found):
        raise InputError(f"{url} holds no run: there is no {RUN_FILE}")
    return ds.FileSystemDataset.from_paths(parts, schema=schema, format=ds.ParquetFileFormat(), filesystem=files)
