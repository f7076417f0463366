import pytest


@pytest.mark.parametrize(("a", "b", "result"), [(5, 3, 2), (3, 5, -2), (0.5, 0.25, 0.25)])
def test_subtract(calculate, a, b, result):
    response = calculate("subtract", a, b)
    assert response.status_code == 200
    assert response.get_json() == {"result": pytest.approx(result)}
