import pytest

OPERATIONS = ["add", "subtract", "multiply", "divide"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("body", [{}, {"a": 1}, {"a": "one", "b": 2}, {"a": None, "b": 2}, {"a": True, "b": 2}, [1, 2]])
def test_what_is_not_two_numbers_is_a_bad_request(client, operation, body):
    response = client.post(f"/{operation}", json=body)
    assert response.status_code == 400
    assert response.get_json()["error"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_not_json_is_a_bad_request(client, operation):
    response = client.post(f"/{operation}", data="a=1&b=2")
    assert response.status_code == 400
    assert response.get_json()["error"]
