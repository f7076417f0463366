import pytest


@pytest.mark.parametrize(("a", "b", "result"), [(8, 2, 4), (7, 2, 3.5), (-1, 4, -0.25)])
def test_divide(calculate, a, b, result):
    response = calculate("divide", a, b)
    assert response.status_code == 200
    assert response.get_json() == {"result": pytest.approx(result)}
