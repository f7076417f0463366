import pytest


@pytest.mark.parametrize(("a", "b", "result"), [(4, 5, 20), (-2, 3, -6), (1.5, 2, 3)])
def test_multiply(calculate, a, b, result):
    response = calculate("multiply", a, b)
    assert response.status_code == 200
    assert response.get_json() == {"result": pytest.approx(result)}
