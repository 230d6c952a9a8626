import json
import statistics

import pytest

import plot_key_insights
import plot_optimization_results
from tests.test_optimize import few, results, sweep, whole  # noqa: F401
from tests.test_run import here, workplace  # noqa: F401

FILE = "optimization_results.json"


def test_both_pictures_and_the_sentences_of_a_sweep(whole, tmp_path, capsys):  # noqa: F811
    analysis, insights = tmp_path / "analysis.png", tmp_path / "insights.png"
    given = ["--results", str(whole / FILE), "--output"]
    assert plot_optimization_results.main([*given, str(analysis)]) == 0
    capsys.readouterr()
    assert plot_key_insights.main([*given, str(insights)]) == 0
    assert analysis.stat().st_size > 50_000
    assert insights.stat().st_size > 50_000
    records = results(whole)["records"]
    sigma, mse = zip(*[(r["setting"]["sigma"], r["accuracy"]["speculative"]["mse"]) for r in records], strict=True)
    said = capsys.readouterr().out
    assert f"sample mode, sigma correlates with the MSE: {statistics.correlation(sigma, mse):+.3f}" in said
    assert "predicted and measured acceptance differ by" in said
    assert "of the 4 lossless configurations acceptance by" in said


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "point", "--mse_tols", "0", "inf", "--ks", "1", "2"],
        ["--preset", "full", "--sigmas", "0.5", "calibrated", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
        ["--decoder", "reference", "--test_pred_len", "4", "--sigmas", "0.5", "--biases", "1", "--mse_tols", "0"],
        ["--test_pred_len", "4", "--sigmas", "0.5", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
        ["--rollout", "sliding", "--sigmas", "0.5", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
    ],
)
def test_sweeps_of_all_kinds_are_drawn(options, here, tmp_path, capsys):  # noqa: F811
    assert sweep(tmp_path, *options) == 0
    for program in (plot_optimization_results, plot_key_insights):
        assert program.main(["--results", str(tmp_path / FILE)]) == 0
    assert (tmp_path / "optimization_analysis.png").is_file()
    assert (tmp_path / "key_optimization_insights.png").is_file()


@pytest.mark.parametrize("content", ["", "{}", '{"records": []}', '{"records": [{"error": "it failed"}]}'])
@pytest.mark.parametrize("program", [plot_optimization_results, plot_key_insights])
def test_what_is_no_sweep_ends_in_one_line(program, content, tmp_path, capsys):
    (tmp_path / FILE).write_text(content)
    assert program.main(["--results", str(tmp_path / FILE)]) == 2
    assert program.main(["--results", str(tmp_path / "none.json")]) == 2
    assert program.main(["--results", str(tmp_path / FILE), "--output", "picture.gif"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_correlations_without_variation_are_not_defined():
    assert plot_key_insights.correlation([(1, i) for i in range(9)]) is None
    assert plot_key_insights.correlation([(i, 2 * i) for i in range(9)]) == pytest.approx(1)
    assert json.dumps(plot_key_insights.correlation([])) == "null"
