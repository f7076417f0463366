"""What the tests of the command line share."""

import uuid

import pytest

from realwork.sandbox import prepared
from realwork.sandbox.engine import connect


@pytest.fixture
def fresh_name(docker_image):
    """A name that nothing else has; the images prepared for an environment of that name are removed afterwards."""
    name = f"fresh-{uuid.uuid4().hex[:8]}"
    yield name
    client = connect()
    for image in client.images(filters={"label": f"{prepared.ENVIRONMENT}={name}"}):
        client.remove_image(image["RepoTags"][0], force=True)
    client.close()
