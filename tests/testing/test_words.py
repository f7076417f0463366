"""What can be told from the text of a test command."""

import pytest

from realwork.testing.words import runs_pytest

YES = [
    "pytest",
    "python3 -m pytest -q tests/test_add.py",
    "cd src && PYTHONPATH=. python -m pytest -x",
    "timeout 60 pytest",
    "if ! command -v pytest; then pip install pytest; fi; pytest tests",
    "pytest tests # -h",
    "# --help\npytest 'tests#1'",
    "pytest --co -q && pytest",
    "pytest --version; python -m pytest -q",
    "nice -n 5 env A=b pytest -q",
    "uv run --frozen pytest -q",
    "poetry run python -m pytest",
    "python -m coverage run -m pytest",
    "bash -lc 'cd x && pytest -q'",
    "./.venv/bin/pytest -k 'a or b'",
    "pip install pytest && pytest -q",
    "(cd x; pytest)",
    "pytest | tee log",
    "true\npytest -m 'not slow'",
    "if pytest; then true; fi",
    "source .venv/bin/activate && python -m pytest tests",
    ". venv/bin/activate; pytest",
    "/usr/bin/python3.11 -bb -X dev -m pytest",
]
MAYBE = [
    "command -v pytest",
    "pytest -k 'a # b'",
    "pip install pytest",
    "grep pytest requirements.txt",
    "echo pytest",
    "sh run.sh pytest",
    "source env.sh && pytest",
    "make test ARGS=pytest",
    "sudo pytest",
    "eval 'pytest'",
    "cat <<EOF\nit's pytest\nEOF",
]
NO = [
    "true # pytest",
    "true",
    "./run_pytest.sh",
    "cat tests/test_pytest.py",
    "test -f pytest.ini",
    "pip install pytest-cov",
    "python -I -m pytest",
    "python -Em pytest",
    "! pytest tests",
    "pytest --version",
    "pytest --collect-only -q",
    "unset PYTHONPATH; pytest",
    "env -u PYTHONPATH pytest",
]


@pytest.mark.parametrize(
    ("command", "answer"),
    [(command, "yes") for command in YES]
    + [(command, "maybe") for command in MAYBE]
    + [(command, "no") for command in NO],
)
def test_whether_a_command_runs_pytest_is_told_from_its_words(command, answer):
    assert runs_pytest(command) == answer
