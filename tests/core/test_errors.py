"""What errors say of themselves."""

import pickle

from realwork.errors import InputError


def test_an_input_error_names_every_problem_in_its_text():
    error = InputError("run.json: 2 problems", problems=["a is wrong", "b is missing"])
    assert str(error) == "run.json: 2 problems\n  - a is wrong\n  - b is missing"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)
    assert str(InputError("no such file")) == "no such file"
