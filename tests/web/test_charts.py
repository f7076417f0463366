"""What the plots of a run show."""

from realwork.analysis.overview import environments, overview
from realwork.web.charts import comparison, run_charts
from tests.dataset.records import graded

from .test_asking import index_of


def curves_of(directory, rewards):
    directory.mkdir()
    records = [graded(sample).model_copy(update={"reward": reward}) for sample, reward in enumerate(rewards)]
    index = index_of(directory, records)
    return overview(index, environments(index)).curves


def test_success_and_reward_share_a_plot_where_both_are_shares(tmp_path):
    (chart,) = [each for each in run_charts(curves_of(tmp_path / "r", [0.5, 1.0])) if "reward" in each.says]
    assert chart.is_share
    assert [trace["name"] for trace in chart.traces] == ["success rate", "mean reward"]
    assert chart.says == "Success rate 100% and mean reward 75% over the latest 2 graded rollouts."


def test_rewards_beyond_one_have_a_plot_of_their_own(tmp_path):
    charts = {each.title: each for each in run_charts(curves_of(tmp_path / "r", [1.0, 3.0]))}
    assert charts["Success"].is_share
    assert not charts["Reward"].is_share
    assert charts["Reward"].says == "Mean reward 2.00 over the latest 2 graded rollouts."


def test_runs_are_compared_on_one_scale(tmp_path):
    runs = [(name, curves_of(tmp_path / name, rewards)) for name, rewards in (("a", [0.5]), ("b", [3.0]))]
    success, reward = comparison(runs)
    assert (success.is_share, reward.is_share) == (True, False)
    assert reward.says == "Mean reward of the latest rollouts: a 50%; b 3.00."
