import json
import statistics
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import plot_key_insights
import plot_optimization_results
import run
from leapcast.exp.exp_predict import ExpPredict
from leapcast.utils.reporting.figures import drafts_figure, forecast_figure, plt, prediction_figure, short
from tests.helpers import data, results, series_file, sweep

pytestmark = pytest.mark.usefixtures("few")
FILE = "optimization_results.json"


@pytest.fixture
def figures(monkeypatch):
    """What was drawn."""
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", drawn.append)
        yield drawn
    plt.close("all")


def shows(axes) -> bool:
    """Whether a panel has anything in it, but for rules and words."""
    return bool(axes.images or axes.collections) or any(len(line.get_xydata()) for line in axes.lines)


def test_both_pictures_and_the_sentences_of_a_sweep(whole, tmp_path, capsys):
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
    ("options", "left"),
    [
        (
            ["--preset", "point", "--mse_tols", "0", "inf", "--ks", "1", "2"],
            (
                "left out: sigma, bias (no configuration has a value); predicted mse_added (no configuration draws",
                "left out: why acceptance was zero (nothing was proposed with bias 1, mse_tol 0 and a number as sigma);"
                " what noise does (no samples with a number as sigma)",
            ),
        ),
        (
            ["--preset", "full", "--sigmas", "0.5", "calibrated", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
            ("left out: mse_tol × K (one value each)", ""),
        ),
        (
            ["--decoder", "reference", "--test_pred_len", "4", "--sigmas", "0.5", "--biases", "1", "--mse_tols", "0"],
            (
                "left out: predicted acceptance, predicted speedup, predicted mse_added (not both predicted and",
                "",
            ),
        ),
        (
            ["--test_pred_len", "4", "--sigmas", "0.5", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
            ("left out: acceptance (nothing was proposed); ", "where speculation pays (nothing was proposed)"),
        ),
        (
            ["--rollout", "sliding", "--sigmas", "0.5", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
            ("left out: mse_tol × K (one value each); predicted speedup (not both predicted and measured)", ""),
        ),
        (
            ["--sigmas", "calibrated", "--biases", "1", "--mse_tols", "0", "--ks", "1"],
            (
                "left out: sigma × K, mse_tol × K (one value each)",
                "what noise does (no samples with a number as sigma)",
            ),
        ),
        (
            ["--sigmas", "0.5", "--biases", "1", "--mse_tols", "inf", "--ks", "2"],
            ("left out: sigma × K, mse_tol × K (one value each)", "what tolerance buys (nothing was proposed in point"),
        ),
    ],
)
def test_sweeps_of_all_kinds_are_drawn_and_no_panel_is_empty(options, left, here, tmp_path, capsys, figures):
    assert sweep(tmp_path, *options) == 0
    for program, told in zip((plot_optimization_results, plot_key_insights), left, strict=True):
        capsys.readouterr()
        assert program.main(["--results", str(tmp_path / FILE)]) == 0
        said, figure = capsys.readouterr().out, figures.pop()
        assert all(map(shows, figure.axes))
        note = [line for line in said.splitlines() if line.startswith("left out: ")]
        assert len(note) == bool(told)
        assert not told or told in note[0]
        assert ("left out" in figure.get_suptitle()) == bool(told)
    assert (tmp_path / "optimization_analysis.png").is_file()
    assert (tmp_path / "key_optimization_insights.png").is_file()


@pytest.mark.parametrize("times", [0.5, 1.5])
def test_findings_say_where_nothing_is_faster_than_the_target_alone(whole, times):
    told = results(whole)
    for record in told["records"]:
        record["speedup"]["vs_target_cached"] = times
        record["timing"]["speculative"]["per_batch_s"] = [1.0]
    said = plot_key_insights.findings(told, told["records"])
    assert any("none is faster than the target alone" in line for line in said) == (times < 1)
    assert any(line.startswith("speeds are of 1 batch and rough") for line in said)


def test_where_no_panel_has_anything_none_is_drawn(whole, tmp_path, capsys):
    told = results(whole)
    for record in told["records"]:
        record["setting"]["sigma"], record["acceptance"]["rate"] = "calibrated", None
    (tmp_path / FILE).write_text(json.dumps(told))
    assert plot_key_insights.main(["--results", str(tmp_path)]) == 0
    assert "no picture: none of its panels has anything to show" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_searches_with_many_values_leave_out_their_heat_map(whole, tmp_path, capsys, figures):
    told = results(whole)
    for i, record in enumerate(told["records"]):
        record["setting"]["sigma"] = 0.1 + 0.1 * i
    (tmp_path / FILE).write_text(json.dumps(told))
    assert plot_optimization_results.main(["--results", str(tmp_path)]) == 0
    assert "left out: sigma × K (more than 10 values)" in capsys.readouterr().out
    assert all(map(shows, figures.pop().axes))


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


@pytest.mark.parametrize(
    "name", ["", "a", "x" * 60, "x" * 61, "ab" * 1_000_000, "two\nlines", "\n" * 1000], ids=lambda name: len(name)
)
def test_names_are_cut_to_what_a_picture_can_hold(name):
    found = short(name)
    assert len(found) <= 60
    assert "\n" not in found
    if len(name) > 60 and name.strip():
        assert (found[:29], found[30], found[-29:]) == (name[:29], "…", name[-29:])
    elif "\n" not in name:
        assert found == name


def test_a_long_name_takes_no_more_room_than_another(tmp_path, figures):
    name, times = "column$" * 1000, np.arange(8)
    prediction_figure(tmp_path / "a.png", [(name, times, times, times + 8, np.ones(8), None, {})])
    values = {"target": torch.zeros(8, 1)}
    forecast_figure(tmp_path / "b.png", {name: (0, torch.zeros(8), torch.zeros(8))}, values, {name: torch.zeros(0)}, 4)
    ratio = {"rate": 0.5, "speedup": {"vs_target_cached": 1.0}}
    row = {"point": ratio, "accept_everything": ratio, "sample": {"learned": ratio}, "rms_distance_by_position": [0.1]}
    drafts_figure(tmp_path / "c.png", [row | {"group": name, "draft": name}])
    assert len(figures) == 3
    for figure in figures:
        for axes in figure.axes:
            words = [axes.title, *axes.get_yticklabels(), *(axes.get_legend().texts if axes.get_legend() else ())]
            assert max(len(word.get_text()) for word in words) < 90


@pytest.mark.parametrize(
    ("columns", "told"), [(2, ""), (8, ""), (9, "the first 8 of 9 columns"), (21, "the first 8 of 21 columns")]
)
def test_a_picture_of_some_columns_says_so(columns, told, here, capsys, figures):
    series_file(here, 40, "wide.csv", lambda t: pd.concat([t["a"].rename(f"a{i}") for i in range(columns)], axis=1))
    given = ["--task_name", "predict", "--data_path", "wide.csv", "--checkpoint", "checkpoints/target/checkpoint.pth"]
    assert run.main([*given, "--test_pred_len", "8", "--setting", "wide", "--backtest", "0"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert (f"forecast.png ({told}), " in said) == bool(told)
    assert ("(" in said) == bool(told)
    (figure,) = figures
    assert figure.get_suptitle() == told
    assert len(figure.axes) == min(columns, 8)


@pytest.mark.parametrize(
    ("series", "columns", "batch", "told"),
    [
        (8, 1, 32, ""),
        (8, 2, 32, "the first of 2 columns"),
        (9, 1, 32, "the first 8 of 9 series"),
        (5, 2, 2, "the first 2 of 5 series, the first of 2 columns"),
    ],
)
def test_a_picture_of_some_series_says_so(series, columns, batch, told, here, capsys, figures):
    times = pd.date_range("2020-01-01", periods=12, freq="h")
    values = {f"a{i}": np.sin(np.arange(12 * series)) for i in range(columns)}
    table = pd.DataFrame({"id": np.repeat(np.arange(series), 12), "date": np.tile(times, series)} | values)
    table.to_csv("long.csv", index=False)
    given = ["--task_name", "predict", "--data_path", "long.csv", "--checkpoint", "checkpoints/target/checkpoint.pth"]
    given += ["--id_column", "id", "--batch_size", str(batch), "--test_pred_len", "4", "--setting", "long"]
    given += ["--overwrite", "--backtest", "0"]
    assert run.main(given) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert (f"forecast.png ({told}), " in said) == bool(told)
    assert figures[0].get_suptitle() == told


def test_many_series_are_told_readably():
    table, args = SimpleNamespace(variables=1), SimpleNamespace(id_column="id")
    assert ExpPredict.part(SimpleNamespace(table=table, args=args), 8, 2000) == "the first 8 of 2,000 series"


@pytest.mark.parametrize(("variables", "told"), [(1, ""), (4, ""), (5, "4 of 5 variables")])
def test_a_picture_of_some_variables_says_so(variables, told, here, capsys, figures):
    series_file(here, 260, "many.csv", lambda t: pd.concat([t["a"].rename(f"a{i}") for i in range(variables)], axis=1))
    given = [*data("many.csv"), "--checkpoint", "checkpoints/target/checkpoint.pth", "--test_pred_len", "8"]
    assert run.main([*given, "--max_windows", "2", "--setting", "many"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith(f"forecast.png ({told})" if told else "forecast.png")
    assert figures[0].get_suptitle() == told
    assert len(figures[0].axes) == min(variables, 4)


def test_a_picture_shows_two_horizons_of_the_context(here, figures):
    given = [*data(), "--checkpoint", "checkpoints/target/checkpoint.pth", "--test_pred_len", "5"]
    assert run.main([*given, "--max_windows", "2", "--setting", "near"]) == 0
    assert {len(axes.lines[0].get_xdata()) for axes in figures[0].axes} == {10}
