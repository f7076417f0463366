"""The run file as the user wrote it: loaded, merged with flags, resolved, every mistake named at once."""

from realwork.runfile.checks import check_output
from realwork.runfile.load import RunFile, load_run_file

__all__ = ["RunFile", "check_output", "load_run_file"]
