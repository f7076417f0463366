import pytest


@pytest.mark.parametrize(("a", "b", "result"), [(2, 3, 5), (-1, 1, 0), (0.1, 0.2, 0.3)])
def test_add(calculate, a, b, result):
    response = calculate("add", a, b)
    assert response.status_code == 200
    assert response.get_json() == {"result": pytest.approx(result)}
