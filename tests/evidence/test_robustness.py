"""Accuracy on corrupted images: against recomputation and known truth, damaged files and holes."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pipelines.evidence import outcomes, robustness, schemas, stats
from pipelines.evidence.robustness import Corrupted
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
from pipelines.runs.reading import read_runs
from tests import fake_results as fake
from tests.evidence.made import one_set

METHODS = ["full", "head-only", "colora-blocks2-5", "colora-block5"]


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(methods=METHODS, seeds=(0, 1, 2), n_test=60, folds=False, skip=(), **more):
    params = fake.params(methods, seeds=seeds, probe={"seeds": [0, 1]}, **more)
    fake.write_profile(params, n_test=n_test, folds=folds, skip=skip)
    return params


def read(params):
    runs, _ = read_runs(params)
    return robustness.read(params, runs, outcomes.gather(params, runs)["test"])


def frame(params):
    return schemas.frame("robustness", robustness.rows(read(params)))


def test_every_accuracy_and_what_is_lost():
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
                assert row["drop"] == pytest.approx(clean - right[place, severity - 1])
            assert found.loc[(method, kind, 0)].accuracy == pytest.approx(right[place].mean())
        row = found.loc[(method, "mean", 0)]
        assert row.accuracy == pytest.approx(right.mean()) and row.clean == pytest.approx(clean)
        assert row["drop"] == pytest.approx(clean - right.mean())
    assert (found.runs == 2).all() and (found.images == 60).all()
    assert ((found.lo < found.accuracy) & (found.accuracy < found.hi) & (found.lo > 0) & (found.hi < 1)).all()
    assert ((found.drop_lo < found["drop"]) & (found["drop"] < found.drop_hi)).all()


def test_the_interval_of_accuracy_is_that_of_any_accuracy():
    params = write(folds=True)
    row = frame(params).query("method == 'full' and kind == 'motion' and severity == 4").iloc[0]
    tested = []
    for seed in (0, 1):
        with np.load(params.run_dir("full", seed) / "corruptions.npz") as archive:
            own = archive["labels"], np.eye(4)[archive["predicted"][5, 3]]
            tested += one_set([own], units=archive["indices"], n_units=180)
    assert (row.lo, row.hi) == pytest.approx(
        outcomes.mean(tested, "accuracy").share_interval(counted=outcomes.counted(tested, "accuracy"))
    )
    assert row.images == 120


def one(clean, corrupted, seed=0, kinds=("blur",), units=None, n_units=None):
    """A probed run, by whether its images were named rightly: clean (n,), corrupted (kinds, n) at all severities."""
    units = np.arange(len(clean)) if units is None else units
    correct = np.vstack([clean, np.repeat(np.atleast_2d(corrupted), robustness.SEVERITIES, axis=0)])
    values, influence = stats.jackknife(
        lambda counts: robustness.shares(correct, counts), units, n_units or 1 + units.max()
    )
    return Corrupted(seed, list(kinds), values, influence, np.arange(len(clean)), units)


def test_what_moves_both_accuracies_cancels():
    """A network as right as without corruption loses nothing, however much its accuracy varies."""
    rng = np.random.default_rng(1)
    each = rng.random((3, 200)) < np.array([[0.7], [0.8], [0.9]])
    runs = [one(right, right, seed) for seed, right in enumerate(each)]
    row = robustness.rows({"m": runs})[-1]
    assert row["drop"] == pytest.approx(0, abs=1e-12) and row["hi"] - row["lo"] > 0.1
    assert row["drop_lo"] < 0 < row["drop_hi"] and row["drop_hi"] - row["drop_lo"] < 0.03


def test_what_is_lost_has_the_interval_of_a_paired_t_test():
    rng = np.random.default_rng(3)
    clean = rng.random((4, 400)) < 0.8
    right = clean & (rng.random((4, 400)) < np.array([[0.7], [0.75], [0.8], [0.72]]))
    units = [np.arange(400) + 400 * seed for seed in range(4)]
    runs = [one(*own, n_units=1600) for own in zip(clean, right, range(4), [("blur",)] * 4, units)]
    rows = robustness.rows({"m": runs})
    gaps = clean.mean(1) - right.mean(1)
    expected = scipy_stats.t.interval(0.95, 3, gaps.mean(), scipy_stats.sem(gaps))
    for row in rows:  # one kind whose severities are alike
        assert (row["drop_lo"], row["drop_hi"]) == pytest.approx(expected, rel=1e-4)


def test_pairs_are_by_kind_and_say_where_the_order_turns():
    rng = np.random.default_rng(5)
    kinds, n = ("blur", "gamma", "motion"), 400
    ours, theirs = [], []
    for seed in range(5):
        hard = rng.random((2, 4, n))
        first = hard[0] < np.array([0.9, 0.9, 0.8, 0.5])[:, None]  # clean, then by kind
        second = hard[1] < np.array([0.9, 0.6, 0.7, 0.8])[:, None]
        ours.append(one(first[0], first[1:], seed, kinds))
        theirs.append(one(second[0], second[1:], seed, kinds))
    rows = robustness.pair_rows({"a": ours, "b": theirs}, "a", ["b", "gone"])
    found = {row["kind"]: row for row in rows}
    assert list(found) == ["clean", "blur", "gamma", "motion", "mean"] and {row["runs"] for row in rows} == {5}
    gaps = np.array([[a.values[1 + 5 * k] - b.values[1 + 5 * k] for a, b in zip(ours, theirs)] for k in range(3)])
    assert [found[kind]["difference"] for kind in kinds] == pytest.approx(gaps.mean(1))
    assert found["mean"]["difference"] == pytest.approx(gaps.mean())
    order = {kind: row["order"] for kind, row in found.items()}
    assert order["blur"] == order["gamma"] == "same" and order["motion"] == "reversed"
    # Kinds are drawn anew: three that differ by a third say nothing of others.
    spread = np.sqrt(np.var(gaps.mean(1), ddof=1) / 3)
    reach = (found["mean"]["hi"] - found["mean"]["lo"]) / 2
    assert reach > scipy_stats.t.ppf(0.975, 2) * spread and order["mean"] == "open"
    assert robustness.pair_rows({"a": ours}, None, ["b"]) == []


@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_over_kinds_covers_the_mean_of_new_kinds(shared):
    """Six kinds whose true differences are normal about 0.05; five runs, images and kinds new in every trial."""
    rng, inside, trials = np.random.default_rng(7), 0, 400
    for _ in range(trials):
        truth, image = rng.normal(0.05, 0.06, 6), rng.normal(0, 0.3, 80)
        noise = image if shared else rng.normal(0, 0.3, (5, 80))
        values = truth.mean() + rng.normal(0, 0.02, 5) + np.broadcast_to(noise, (5, 80)).mean(1)
        units = np.arange(80) if shared else np.arange(400).reshape(5, 80)
        influence = np.zeros((5, 80 if shared else 400))
        for run in range(5):
            own = noise if shared else noise[run]
            influence[run, units if shared else units[run]] = (own - own.mean()) / np.sqrt(80 * 79)
        mean = stats.estimate(values, influence, influence.shape[1])
        lo, hi = robustness.over_kinds(mean, truth + values.mean() - truth.mean())
        inside += lo <= 0.05 <= hi
    assert 0.93 <= inside / trials <= 1
    assert np.isnan(robustness.over_kinds(mean, np.array([0.1]))).all()


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
        ({"kinds": np.arange(6)}, "kinds should be words"),
        ({"clean": lambda a: (a + 1) % 4}, "clean names class"),
    ],
)
def test_a_damaged_file_is_named(workdir, arrays, message):
    params = write(["head-only", "full"])
    change(params, **arrays)
    with pytest.raises(UserError, match=message) as caught:
        frame(params)
    assert "full/1/corruptions.npz" in str(caught.value)
    assert "python -m pipelines.train --method full --seed 1" in str(caught.value)


def test_a_file_that_is_no_archive(workdir):
    params = write(["full"])
    (params.run_dir("full", 1) / "corruptions.npz").write_text("no")
    with pytest.raises(UserError, match="corruptions.npz: not readable"):
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
    assert row.runs == 2


def test_methods_on_other_images_are_refused(workdir):
    params = write(["head-only", "full"])
    change(params, **dict.fromkeys(("indices", "labels", "clean"), lambda a: a[:50]), predicted=lambda a: a[..., :50])
    with pytest.raises(UserError, match="images of seed 1 differ from those in .*head-only/1/corruptions.npz"):
        frame(params)


def test_a_missing_file_is_an_error_or_a_hole(workdir):
    params = write(["full", "head-only"])
    for method, seeds in (("full", [1]), ("head-only", [0, 1])):
        for seed in seeds:
            (params.run_dir(method, seed) / "corruptions.npz").unlink()
    with pytest.raises(UserError, match="full/1/corruptions.npz: no such file, which `probe` asks for"):
        frame(params)
    found = frame(params.model_copy(update={"allow_missing": True}))
    assert set(found.method) == {"full"} and (found.runs == 1).all()


def test_without_probe_there_are_no_rows():
    params = fake.params(["full", "colora-blocks2-5"], seeds=(0, 1))
    fake.write_profile(params, n_test=60)
    summarise(params)
    assert schemas.read(params.results_dir, "robustness").empty
    assert schemas.read(params.results_dir, "robustness_pairs").empty


def test_the_files_of_a_profile():
    params = write(["full", "colora-blocks2-5", "bitfit"])
    summarise(params)
    assert len(schemas.read(params.results_dir, "robustness")) == 3 * 37
    found = schemas.read(params.results_dir, "robustness_pairs")
    assert set(found.method) == {"colora-blocks2-5"} and found.against.tolist() == ["full"] * 8 + ["bitfit"] * 8
