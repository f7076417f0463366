"""The command line: results on standard output, everything else on standard error.

Exit codes: 0 done, 1 some rollouts have no grade, 2 the input is wrong, 130 interrupted.
"""

from realwork.cli.app import main

__all__ = ["main"]
