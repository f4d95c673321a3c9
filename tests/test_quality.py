"""Tables and figures of scores, reliability and stability, on made-up results: numbers, holes, absent files, looks."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.transforms import Bbox

from pipelines.evidence import scores, stability
from pipelines.evidence.summary import summarise
from pipelines.runs.reading import common_classes, read_runs
from report import quality, quality_figures, style, tables
from report.results import ReportError, load
from tests import fake_results as fake

METHODS = ["full", "head-only", "bitfit", "colora-blocks2-5"]


def write_results(where, monkeypatch, methods=METHODS, seeds=(0, 1, 2), skip=(), **options):
    """Summarised made-up results with the files that this module's subject reads; returns (folder, runs)."""
    monkeypatch.chdir(where)
    params = fake.params(methods, seeds=seeds, allow_missing=bool(skip))
    fake.write_profile(params, skip=skip, n_test=80, **options)
    summarise(params)
    runs, _ = read_runs(params)
    folder = where / params.results_dir
    for name, frame in {
        "scores": scores.frame(runs),
        "class_scores": scores.class_frame(runs, common_classes(runs)),
        "reliability": scores.reliability_frame(runs),
        "stability": stability.frame(runs),
    }.items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return folder, runs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four methods of three seeds; transfer has one of them, bitfit none."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        skip = [("head-only", 1), ("head-only", 2), *[("bitfit", seed) for seed in range(3)]]
        yield write_results(tmp_path_factory.mktemp("quality"), monkeypatch, skip=skip)


@pytest.fixture
def results(written):
    return load(written[0])


@pytest.fixture(autouse=True)
def _as_in_the_report():
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        yield
    plt.close("all")


def row(table, method):
    return table.text[table.text["Method"] == method].iloc[0]


def test_scores_are_means_over_seeds(results, written):
    table = quality.scores(results)
    own = scores.frame({key: run for key, run in written[1].items() if key[0] == "full"})
    assert row(table, "full")["F1"] == f"{own.f1.mean():.3f} ± {own.f1.std():.3f}"
    assert row(table, "full")["ECE by chance"] == f"{own.ece_chance.mean():.3f}"
    assert table.raw.set_index("method").brier_sd["full"] == pytest.approx(own.brier.std(), rel=1e-4)
    assert table.text["Method"].tolist() == results.methods.index.tolist()


def test_holes_are_dashes(results):
    assert set(row(quality.scores(results), "bitfit")[1:]) == {tables.DASH}
    assert "±" not in row(quality.scores(results), "head-only")["F1"]
    assert set(row(quality.class_scores(results), "bitfit")[2:]) == {tables.DASH}
    assert set(row(quality.stability(results), "bitfit")[1:]) == {tables.DASH}
    alone = row(quality.stability(results), "head-only")
    assert alone["Spread between seeds, points"] == tables.DASH
    assert "[" not in alone["Largest drawdown, points"] and alone["Loss spikes"] == "0.0 [0.0, 3.7]"


def test_a_class_that_one_seed_never_predicts_is_a_hole_of_the_method(written, tmp_path):
    frame = pd.read_csv(written[0] / "scores.csv")
    frame.loc[(frame.method == "full") & (frame.seed == 1), "precision"] = np.nan
    frame.to_csv(tmp_path / "scores.csv", index=False)
    table = quality.scores(replace(load(written[0]), directory=tmp_path))
    assert row(table, "full")["Precision"] == tables.DASH and "±" in row(table, "full")["Recall"]


def test_scores_by_class(results, written):
    table = quality.class_scores(results)
    assert table.text["Class"].tolist() == fake.CLASSES * 4
    found = [
        scores.class_scores(c["labels"], c["probabilities"])["recall"][1]
        for k, c in written[1].items()
        if k[0] == "full"
    ]
    assert table.raw.set_index(["method", "class"]).recall_mean["full", "dme"] == pytest.approx(
        np.mean(found), rel=1e-4
    )


def test_stability_is_shown_in_points_and_defined(results):
    table = quality.stability(results)
    own = pd.read_csv(results.directory / "stability.csv").set_index(["method", "measure"]).loc[("full", "jitter")]
    shown = f"{100 * own.value:.2f} [{100 * own.lo:.2f}, {100 * own.hi:.2f}]"
    assert row(table, "full")["Epoch-to-epoch jitter, points"] == shown
    assert all(title in table.note and formula in table.note for title, formula in stability.DEFINITIONS.values())
    assert stability.INTERVALS in table.note
    assert "With folds" not in table.note
    folds = replace(results, card={"settings": {"source": "folder"}})
    assert "With folds" in quality.stability(folds).note


def test_tables_are_plain_in_latex(results):
    for make in quality.TABLES:
        assert tables.latex(make(results)).isascii()


def test_figures(results):
    diagram, dots = (draw(results) for draw in quality_figures.FIGURES)
    panels = [axis for axis in diagram.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in panels] == [
        "full",
        "transfer (1/3)",
        "bitfit (0/3)",
        "colora-blocks2-5",
    ]
    assert [t.get_text() for t in panels[2].texts] == ["no result"]
    bars = panels[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    points = pd.read_csv(results.directory / "reliability.csv").query("method == 'full' and count > 0")
    drawn = np.concatenate([line.get_ydata() for line in panels[0].lines if line.get_marker() == "o"])
    assert sorted(drawn) == pytest.approx(sorted(points.accuracy))
    hollow = [len(line.get_ydata()) for line in panels[0].lines if line.get_markerfacecolor() == "white"]
    assert sum(hollow) == (points["count"] < quality_figures.FEW).sum() > 0
    assert len(dots.axes) == 3
    assert [t.get_text() for t in dots.axes[0].texts] == ["undefined", "no result"]
    assert [t.get_text() for t in dots.axes[1].texts] == ["no result"]


def test_results_from_before_there_were_such_files(written, tmp_path):
    old = replace(load(written[0]), directory=tmp_path)
    assert all(make(old).raw.empty for make in quality.TABLES)
    assert [draw(old) for draw in quality_figures.FIGURES] == [None, None]


def test_a_file_without_a_column_is_named(written, tmp_path):
    (tmp_path / "scores.csv").write_text("method,seed\nfull,0\n")
    old = replace(load(written[0]), directory=tmp_path)
    with pytest.raises(ReportError, match="scores.csv: columns recall, precision"):
        quality.scores(old)


def test_one_seed_and_short_curves(tmp_path, monkeypatch):
    results = load(write_results(tmp_path, monkeypatch, methods=["full", "head-only"], seeds=(0,), epochs=2)[0])
    assert quality_figures.stability(results) is None
    assert row(quality.stability(results), "full")[1:].eq(tables.DASH).all()
    assert quality_figures.reliability(results) is not None


def test_no_run_at_all(tmp_path, monkeypatch):
    results = load(write_results(tmp_path, monkeypatch, methods=["full"], seeds=(0,), skip=[("full", 0)])[0])
    assert all(make(results).raw.empty for make in quality.TABLES)
    assert [draw(results) for draw in quality_figures.FIGURES] == [None, None]


def test_thirty_methods_fit(tmp_path, monkeypatch):
    methods = [*fake.METHODS, *fake.MORE]
    results = load(write_results(tmp_path, monkeypatch, methods=methods, seeds=(0, 1), epochs=8)[0])
    diagram, dots = (draw(results) for draw in quality_figures.FIGURES)
    assert max(figure.get_figheight() for figure in (diagram, dots)) < 16
    for figure in (diagram, dots):
        figure.canvas.draw()
        whole = figure.bbox
        labels = [t for axis in figure.axes for t in (*axis.get_yticklabels(), axis.xaxis.label) if t.get_text()]
        assert all(whole.contains(*corner) for t in labels for corner in t.get_window_extent().get_points())
    labels = [axis.xaxis.label.get_window_extent() for axis in dots.axes]
    titles = [axis._left_title.get_window_extent() for axis in diagram.axes if axis.get_visible()]
    for boxes in (labels, titles):
        assert not any(Bbox.intersection(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    for axis in diagram.axes:  # the errors stand clear of the points
        for text in axis.texts:
            low = axis.transData.inverted().transform(text.get_window_extent().get_points())[0, 1]
            assert text.get_text() == "no result" or low > 1.01
