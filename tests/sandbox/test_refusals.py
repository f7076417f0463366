"""What the engine's client raises, as errors of ours."""

import pytest
from docker.errors import NotFound
from requests import Response
from requests.exceptions import ConnectionError as NoConnection

from realwork.errors import FileError, SandboxLost
from realwork.sandbox.refusals import NameInUse, NoAnswer, translated


def gone():
    response = Response()
    response.status_code = 404
    return NotFound("404", response=response, explanation="No such container: 3f82ec379936")


def while_another_is_handled(work):
    """What `work` raises in the block, while an error of ours is handled around it."""
    try:
        raise NameInUse("taken")
    except NameInUse:
        with translated("removing"):
            work()


def removing():
    raise gone()


def sending():
    try:
        raise FileError("no such file")
    except FileError as error:
        raise NoConnection("aborted") from error


def test_an_error_that_is_being_handled_is_not_the_cause_of_another_one():
    with pytest.raises(SandboxLost, match="removing: No such container"):
        while_another_is_handled(removing)


def test_an_error_of_ours_that_was_wrapped_on_its_way_comes_out_again():
    with pytest.raises(FileError, match="no such file"), translated("sending"):
        sending()
    with pytest.raises(FileError, match="no such file"):
        while_another_is_handled(sending)


def test_what_else_fails_is_no_answer():
    with pytest.raises(NoAnswer, match="asking: the engine does not answer"), translated("asking"):
        raise NoConnection("aborted")
