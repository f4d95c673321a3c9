"""Accuracy on corrupted images: against recomputation and known truth, damaged files, holes, and the report."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import robustness, stats
from pipelines.evidence.summary import summarise
from pipelines.runs.reading import SummaryError, add_units, read_runs
from report import page, style, tables
from report import robustness as shown
from report.results import load
from tests import fake_results as fake

METHODS = ["full", "head-only", "colora-blocks2-5", "colora-block5"]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(methods=METHODS, seeds=(0, 1, 2), n_test=60, folds=False, skip=(), **more):
    params = fake.params(methods, seeds=seeds, probe={"seeds": [0, 1]}, **more)
    fake.write_profile(params, n_test=n_test, folds=folds, skip=skip)
    return params


def frame(params):
    runs, _ = read_runs(params)
    add_units(params, runs)
    return robustness.frame(params, runs)


def test_every_accuracy_and_what_is_kept_of_it(workdir):
    params = write()
    found = frame(params).fillna({"severity": 0}).set_index(["method", "kind", "severity"])
    assert len(found) == 4 * (30 + 6 + 1)
    for method in METHODS:
        runs = []
        for seed in (0, 1):
            with np.load(params.run_dir(method, seed) / "corruptions.npz") as archive:
                runs.append(dict(archive))
        right = np.mean([(run["predicted"] == run["labels"]).mean(2) for run in runs], axis=0)
        clean = np.mean([(run["clean"] == run["labels"]).mean() for run in runs])
        for place, kind in enumerate(fake.CORRUPTIONS):
            for severity in range(1, 6):
                row = found.loc[(method, kind, severity)]
                assert row.accuracy == pytest.approx(right[place, severity - 1])
                assert row.kept == pytest.approx(right[place, severity - 1] / clean)
            assert found.loc[(method, kind, 0)].accuracy == pytest.approx(right[place].mean())
        row = found.loc[(method, "mean", 0)]
        assert row.accuracy == pytest.approx(right.mean()) and row.clean == pytest.approx(clean)
        assert row.kept == pytest.approx(right.mean() / clean)
    assert (found.seeds == 2).all() and (found.test_images == 60).all()
    assert ((found.lo < found.accuracy) & (found.accuracy < found.hi) & (found.lo > 0) & (found.hi < 1)).all()
    assert ((found.kept_lo < found.kept) & (found.kept < found.kept_hi)).all()


def test_the_interval_of_accuracy_is_that_of_any_accuracy(workdir):
    params = write(folds=True)
    row = frame(params).query("method == 'full' and kind == 'motion' and severity == 4").iloc[0]
    tests, units = [], []
    for seed in (0, 1):
        with np.load(params.run_dir("full", seed) / "corruptions.npz") as archive:
            tests.append((archive["labels"], np.eye(4)[archive["predicted"][5, 3]]))
            units.append(archive["indices"])
    assert (row.lo, row.hi) == pytest.approx(stats.interval(tests, units=units))
    assert row.test_images == 120


def test_the_jackknife_is_that_of_stats():
    rng = np.random.default_rng(0)
    units = rng.integers(0, 9, 50) * 2
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    values, influence = robustness.jackknife(predicted == labels, units, 20)
    for row, value, own in zip(predicted, values, influence):
        expected = stats.jackknife((labels, np.eye(3)[row]), "accuracy", units, 20)
        assert value == pytest.approx(expected[0])
        np.testing.assert_allclose(own, expected[1], atol=1e-12)
    assert np.isnan(robustness.jackknife(predicted == labels, np.zeros(50, int), 3)[1][:, 0]).all()


def one(clean, corrupted, units=None):
    """A run with a single condition, from whether its images were named rightly."""
    n = len(clean)
    return {
        "labels": np.ones(n, int), "clean": clean.astype(int), "predicted": corrupted.astype(int)[None, None],
        "places": np.arange(n), "units": np.arange(n) if units is None else units, "indices": np.arange(n),
    }  # fmt: skip


def test_what_moves_both_accuracies_cancels():
    """A network as right as without corruption keeps all, however much its accuracy varies; one image is the grain."""
    rng = np.random.default_rng(1)
    runs = [one(right, right) for right in (rng.random((3, 200)) < np.array([[0.7], [0.8], [0.9]]))]
    row = robustness.measure(runs, np.ones((1, 1)))[0]
    assert row["kept"] == 1 and row["hi"] - row["lo"] > 0.1
    assert row["kept_lo"] < 1 < row["kept_hi"] and row["kept_hi"] - row["kept_lo"] < 0.03


def test_with_a_clean_accuracy_of_one_the_ratio_is_the_accuracy():
    rng = np.random.default_rng(2)
    runs = [one(np.ones(100, bool), right) for right in rng.random((3, 100)) < 0.7]
    row = robustness.measure(runs, np.ones((1, 1)))[0]
    assert (row["kept"], row["kept_lo"], row["kept_hi"]) == pytest.approx((row["accuracy"], row["lo"], row["hi"]))


def test_against_the_textbook_standard_error_of_a_ratio():
    """One seed, units of one image: Var R = sum (y - R x)^2 / (n (n - 1) mean(x)^2) (Cochran 1977, eq. 6.9)."""
    rng = np.random.default_rng(3)
    clean = rng.random(400) < 0.8
    right = np.where(rng.random(400) < 0.7, clean, rng.random(400) < 0.4)
    row = robustness.measure([one(clean, right)], np.ones((1, 1)))[0]
    residual = right - row["kept"] * clean
    error = np.sqrt((residual**2).sum() / (400 * 399)) / clean.mean()
    # On the logit scale of the accuracy; undone to first order.
    assert (row["kept_hi"] - row["kept_lo"]) / 2 == pytest.approx(1.96 * error, rel=0.01)


def test_nothing_is_kept_of_nothing():
    row = robustness.measure([one(np.zeros(9, bool), np.zeros(9, bool))], np.ones((1, 1)))[0]
    assert row["accuracy"] == 0 and np.isnan([row["kept"], row["kept_lo"], row["kept_hi"]]).all()


@pytest.mark.parametrize("shared", [True, False])
def test_intervals_of_the_ratio_cover_the_truth(shared):
    """Four seeds, 40 patients of 5 images, on the same test or on folds; a truth of 0.6 / 0.8 plus noise of its own."""
    rng = np.random.default_rng(4)
    trials, inside = 300, 0
    for _ in range(trials):
        patients = rng.normal(0, 0.08, 160)
        runs = []
        for seed in range(4):
            own = np.arange(40) + (0 if shared else 40 * seed)
            units = np.repeat(own, 5)
            luck = rng.normal(0, 0.03)
            draw = rng.random(200)  # what makes an image hard does so clean and corrupted
            clean = draw < 0.8 + luck + patients[units]
            right = np.where(rng.random(200) < 0.5, draw, rng.random(200)) < 0.6 + 0.75 * luck + patients[units]
            runs.append(one(clean, right, units))
        row = robustness.measure(runs, np.ones((1, 1)))[0]
        inside += row["kept_lo"] <= 0.75 <= row["kept_hi"]
    assert 0.92 <= inside / trials <= 0.99, inside / trials


def change(params, **arrays):
    """Rewrite a run's corruptions.npz with other arrays; None takes one out."""
    path = params.run_dir("full", 1) / "corruptions.npz"
    with np.load(path) as archive:
        content = dict(archive)
    content = {name: value(content[name]) if callable(value := arrays.get(name, lambda a: a)) else value
               for name in content}  # fmt: skip
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"clean": None}, "not readable as an archive .*clean"),
        ({"clean": np.array([{}] * 60)}, "not readable"),
        ({"predicted": lambda a: a[:, :4]}, r"should be .*\(k, 5, n\)"),
        ({"predicted": lambda a: a.astype(float)}, "integers"),
        ({"predicted": lambda a: a + 4}, "classes should be 0 to 3"),
        ({"clean": lambda a: a.astype(int) - 9}, "classes should be 0 to 3"),
        ({"labels": lambda a: a[::-1]}, "labels differ"),
        ({"labels": lambda a: a[:, None]}, "should be"),
        ({"indices": lambda a: a + 1}, "not test images"),
        ({"indices": lambda a: np.zeros_like(a)}, "not test images"),
        ({"indices": lambda a: a.astype(str)}, "integers"),
        ({"indices": np.zeros(0, int)}, "integers"),
        ({"kinds": lambda a: a[[0, 0, 1, 2, 3, 4]]}, "names that differ"),
        ({"kinds": np.array(["mean", *"abcde"])}, "'mean'"),
        ({"kinds": np.array([*"abcdef"])}, "kinds differ from those in"),
        ({"kinds": np.arange(6)}, "names"),
        ({"clean": lambda a: (a + 1) % 4}, "clean names class"),
    ],
)
def test_a_damaged_file_is_named(workdir, arrays, message):
    params = write(["head-only", "full"])
    change(params, **arrays)
    with pytest.raises(SummaryError, match=message) as caught:
        frame(params)
    assert "full/1/corruptions.npz" in str(caught.value)
    assert "python -m pipelines.train --method full --seed 1" in str(caught.value)


def test_a_file_that_is_no_archive(workdir):
    params = write(["full"])
    (params.run_dir("full", 1) / "corruptions.npz").write_text("no")
    with pytest.raises(SummaryError, match="corruptions.npz: not readable"):
        frame(params)


def test_a_near_tie_may_fall_the_other_way_in_another_batch(workdir):
    params = write(["full"])
    path = params.run_dir("full", 1) / "predictions.npz"
    with np.load(path) as archive:
        content = dict(archive)
    first = content["probabilities"][0].argmax()
    second = (first + 1) % 4
    content["probabilities"][0] = 0.001
    content["probabilities"][0, [first, second]] = 0.509, 0.489
    np.savez(path, **content)
    change(params, clean=lambda a: np.r_[np.uint8(second), a[1:]])
    row = frame(params).query("kind == 'mean'").iloc[0]
    assert row.seeds == 2


def test_methods_on_other_images_are_refused(workdir):
    params = write(["head-only", "full"])
    change(params, **dict.fromkeys(("indices", "labels", "clean"), lambda a: a[:50]), predicted=lambda a: a[..., :50])
    with pytest.raises(SummaryError, match="images of seed 1 differ from those in .*head-only/1/corruptions.npz"):
        frame(params)


def test_a_missing_file_is_an_error_or_a_hole(workdir):
    params = write(["full", "head-only"])
    for method, seeds in (("full", [1]), ("head-only", [0, 1])):
        for seed in seeds:
            (params.run_dir(method, seed) / "corruptions.npz").unlink()
    with pytest.raises(SummaryError, match="full/1/corruptions.npz: no such file, which `probe` asks for"):
        frame(params)
    found = frame(params.model_copy(update={"allow_missing": True}))
    assert set(found.method) == {"full"} and (found.seeds == 1).all()


def test_without_probe_there_are_no_rows_and_nothing_is_shown(workdir):
    params = fake.params(["full"], seeds=(0, 1))
    fake.write_profile(params, n_test=60)
    summarise(params)
    assert (params.results_dir / "robustness.csv").read_text() == ",".join(robustness.COLUMNS) + "\n"
    results = load(params.results_dir)
    assert shown.robustness(results) is None and shown.accuracy_kept(results).raw.empty
    assert shown.caption(results) == ""
    (params.results_dir / "robustness.csv").unlink()  # as in results from before there was any
    assert shown.robustness(results) is None and shown.accuracy_kept(results).raw.empty


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Probed twice of three seeds; transfer has one of the two, bitfit no run at all."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("robustness")
        monkeypatch.chdir(folder)
        skip = [("head-only", 1), *(("bitfit", seed) for seed in range(3))]
        params = write([*METHODS, "bitfit"], skip=skip, allow_missing=True)
        summarise(params)
        yield replace(load(params.results_dir.resolve()))


def test_the_table(results):
    table = shown.accuracy_kept(results)
    text = table.text.set_index("Method")
    csv = pd.read_csv(results.directory / "robustness.csv").query("method == 'full'")
    whole = csv[csv.kind == "mean"].iloc[0]
    assert text.loc["full", "All"] == f"{whole.kept:.3f}"
    assert text.loc["full", "95 % interval"] == f"[{whole.kept_lo:.3f}, {whole.kept_hi:.3f}]"
    assert text.loc["full", "Blur"] == format(csv.query("kind == 'blur' and severity > 0").kept.mean(), ".3f")
    assert text.loc[["full", "head-only", "bitfit"], "Seeds"].tolist() == ["2 of 3", "1 of 3", "0 of 3"]
    assert set(text.loc["bitfit"].drop("Seeds")) == {tables.DASH}
    assert "Not probed: bitfit." in table.note
    assert tables.latex(table).isascii()


def test_the_figure(results):
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        figure = shown.robustness(results)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in axes] == [kind.capitalize() for kind in fake.CORRUPTIONS]
    csv = pd.read_csv(results.directory / "robustness.csv").query("kind == 'gamma' and severity > 0")
    lines = {line.get_ydata()[1]: line for line in axes[3].lines}
    assert len(axes[3].lines) == 4, "bitfit, which has no run, has no line"
    for method, own in csv.groupby("method"):
        line = lines[own.accuracy.iloc[0]]
        assert line.get_color() == results.methods.color[method]
        assert line.get_ydata().tolist() == pytest.approx([own.clean.iloc[0], *own.accuracy])
        assert line.get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    assert all(line.get_linewidth() > 1 for line in axes[0].lines), "without Grad-CAM all methods are alike"
    plt.close(figure)


def test_the_methods_of_the_other_figure_stand_out(results, monkeypatch):
    monkeypatch.setattr(shown.gradcam, "read", lambda results: {"methods": np.array(["bitfit", "head-only", "full"])})
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        figure = shown.robustness(results)
    lines = figure.axes[0].lines
    thick = [line.get_color() for line in lines if line.get_linewidth() > 1]
    assert thick == [results.methods.color[method] for method in ("full", "head-only")] and len(lines) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["full", "head-only", "the other methods"]
    assert "Thick lines" in shown.caption(results)
    plt.close(figure)


def test_the_caption(results):
    text = page.caption(results, "robustness")
    assert all(f"{kind} (" in text for kind in fake.CORRUPTIONS)
    assert "1\N{EN DASH}2 of 3 seeds" in text and "Not probed: bitfit." in text and "Thick lines" not in text
    assert "the mildest blur" not in text
    assert "At 32 px the mildest blur" in page.caption(replace(results, card={"image_size": 32}), "robustness")
