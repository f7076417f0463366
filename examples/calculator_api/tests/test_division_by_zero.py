import pytest


@pytest.mark.parametrize("zero", [0, 0.0])
def test_division_by_zero_is_a_bad_request(calculate, zero):
    response = calculate("divide", 1, zero)
    assert response.status_code == 400
    assert response.get_json()["error"]


def test_zero_divided_is_zero(calculate):
    assert calculate("divide", 0, 5).get_json() == {"result": 0}
