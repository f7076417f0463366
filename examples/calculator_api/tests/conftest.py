"""The service under test: `app.py` in the working directory, with a Flask object named `app`."""

import pytest


@pytest.fixture
def client():
    from app import app

    return app.test_client()


@pytest.fixture
def calculate(client):
    """POST the two numbers to an operation; gives the response."""

    def post(operation, a, b):
        return client.post(f"/{operation}", json={"a": a, "b": b})

    return post
