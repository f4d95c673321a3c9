"""`summarise` on made-up runs: its numbers against the predictions, its refusals, its holes."""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import confusion_matrix

from pipelines.evidence import outcomes, schemas
from pipelines.evidence.outcomes import Outcome
from pipelines.evidence.summary import method_summary, summarise
from pipelines.files.errors import UserError
from pipelines.files.records import RecordError
from pipelines.profile.recipe import Tune
from pipelines.runs.reading import read_runs
from pipelines.summarise import main
from tests import fake_results as fake

ROOT = Path(__file__).parents[2]
METHODS = ["full", "head-only", "colora-blocks2-5"]
FILES = (
    "summary.json", "chosen.json", "metrics.json",
    *(f"{name}.csv" for name, table in schemas.TABLES.items() if table.command.endswith("summarise")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _work_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(params, name):
    with open(params.results_dir / name, newline="") as file:
        return list(csv.DictReader(file))


def predictions(params, method, seed):
    with np.load(params.run_dir(method, seed) / "predictions.npz") as archive:
        return archive["labels"], archive["probabilities"]


def accuracies(params, method):
    return [float((p.argmax(1) == y).mean()) for y, p in (predictions(params, method, s) for s in params.seeds)]


@pytest.mark.parametrize("folds", [False, True])
def test_numbers_are_those_of_the_predictions(folds):
    params = fake.params(METHODS, seeds=(0, 1, 5))
    fake.write_profile(params, folds=folds)
    assert summarise(params).keys() == set(METHODS)
    summary = json.loads((params.results_dir / "summary.json").read_text())
    assert list(summary) == METHODS
    for method in METHODS:
        values, own = accuracies(params, method), summary[method]
        assert own["acc_mean"] == pytest.approx(statistics.mean(values), rel=1e-5)
        assert own["acc_sd"] == pytest.approx(statistics.stdev(values), rel=1e-5)
        assert own["acc_max"] == pytest.approx(max(values), rel=1e-5)
        assert own["acc_lo"] < own["acc_mean"] < own["acc_hi"]
        assert own["auc_lo"] < own["auc_mean"] < own["auc_hi"]
        assert (own["trainable"], own["seeds"]) == (fake.METHODS[method][2], 3)
    y, p = (np.concatenate(part) for part in zip(*(predictions(params, "full", s) for s in params.seeds)))
    counts = [int(r["count"]) for r in rows(params, "confusion.csv") if r["method"] == "full"]
    assert counts == confusion_matrix(y, p.argmax(1)).ravel().tolist()
    gap = np.mean(accuracies(params, "colora-blocks2-5")) - np.mean(accuracies(params, "full"))
    for name, kind in (("contrasts.csv", "against"), ("pairs.csv", "reference")):
        wanted = {"method": "colora-blocks2-5", kind: "full", "metric": "accuracy"}
        (row,) = (r for r in rows(params, name) if wanted.items() <= r.items())
        assert float(row["difference"]) == pytest.approx(gap, abs=1e-6)
    assert {(r["method"], r["seed"]) for r in rows(params, "runs.csv")} == {
        (a, s) for a in METHODS for s in ("0", "1", "5")
    }
    assert len(rows(params, "curves.csv")) == 3 * 3 * 12


def test_files_are_the_same_at_every_run():
    params = fake.params(METHODS)
    fake.write_profile(params)
    summarise(params)
    first = {name: (params.results_dir / name).read_bytes() for name in FILES}
    summarise(params)
    assert first == {name: (params.results_dir / name).read_bytes() for name in FILES}


def test_every_file_has_rows():
    params = fake.everything()
    summarise(params)
    for name, table in schemas.TABLES.items():
        if table.command.endswith("summarise") and name not in ("tuning", "labels"):  # each with tests of its own
            assert len(schemas.read(params.results_dir, name)), name


def test_a_class_that_a_method_never_names_is_told(capsys):
    params = fake.params(["full", "head-only"], seeds=(0,))
    fake.write_profile(params)
    folder = params.run_dir("full", 0)
    with np.load(folder / "predictions.npz") as archive:
        content = dict(archive)
    content["probabilities"][:, 2] = 0
    content["probabilities"] /= content["probabilities"].sum(1, keepdims=True)
    np.savez(folder / "predictions.npz", **content)
    accuracy = float((content["probabilities"].argmax(1) == content["labels"]).mean())
    fake.edit_record(folder, lambda r: r["metrics"]["test"].update(acc=accuracy))
    summarise(params)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(told) == 1 and "full names no test image 'drusen'" in told[0]
    roc = schemas.read(params.results_dir, "roc")
    assert set(roc.method) == {"full", "head-only"}  # nothing declared is there: the profile's own methods are shown


def test_runs_outside_the_profile_are_not_read():
    params = fake.params(METHODS)
    fake.write_profile(params)
    alone = summarise(params)
    more = fake.params([*METHODS, "bitfit"], seeds=(0, 1, 2))
    fake.write_run(more, "bitfit", 0)
    fake.write_run(more, "full", 2)
    assert summarise(params) == alone


def test_one_seed_has_no_standard_deviation():
    params = fake.params(["full"], seeds=(0,))
    fake.write_profile(params)
    own = summarise(params)["full"]
    assert own["acc_sd"] is None and own["auc_sd"] is None and own["seeds"] == 1
    assert json.loads((params.results_dir / "summary.json").read_text(), parse_constant=pytest.fail)


def test_a_run_without_an_auc_leaves_the_method_without_its_deviation(monkeypatch):
    params = fake.params(["full"], seeds=(0, 1, 2))
    fake.write_profile(params)
    runs, _ = read_runs(params)
    test = outcomes.gather(params, runs)["test"]["full"]
    figure = Outcome.figure
    undefined = (float("nan"), np.full(test[0].n_units, np.nan))
    monkeypatch.setattr(
        Outcome, "figure", lambda own, metric: undefined if (own.seed, metric) == (0, "auc") else figure(own, metric)
    )
    own = method_summary(list(runs.values()), test)
    assert own["auc_sd"] is None and own["auc_mean"] is None and own["acc_sd"] is not None


def test_missing_run_is_named_with_the_command_that_makes_it():
    params = fake.params(METHODS)
    fake.write_profile(params, skip=[("head-only", 1)])
    with pytest.raises(UserError, match=r"1 of 6 runs") as caught:
        summarise(params)
    assert "python -m pipelines.train --method head-only --seed 1" in str(caught.value)
    assert not (params.results_dir / "summary.json").exists()


def test_weights_are_listed_without_their_place():
    params = fake.params(["full"], allow_missing=True)
    params.model["weights"] = "../elsewhere/w.safetensors"
    fake.write_profile(params, skip=[("full", 1)])
    described = {"weights": "w.safetensors", "weights_sha256": "ab" * 32}
    fake.edit_record(params.run_dir("full", 0), lambda r: r["settings"].update(described))
    summarise(params)
    listed = [(r["weights"], r["weights_sha256"]) for r in rows(params, "runs.csv")]
    assert listed == [("w.safetensors", "ab" * 32), ("w.safetensors", "")]


def test_holes_where_they_are_allowed(capsys):
    params = fake.params([*METHODS, "bitfit"], seeds=(0, 1, 2), allow_missing=True)
    fake.write_profile(params, skip=[("head-only", 1), *[("bitfit", s) for s in params.seeds]])
    fake.edit_record(params.run_dir("full", 2), lambda r: r.update(status="failed", failure="loss is nan in epoch 3"))
    (params.run_dir("full", 1) / "curves.csv").write_text("epoch\n1\n")
    summary = summarise(params)
    assert "full 1 malformed, full 1 failed, head-only 1 missing, bitfit 3 missing" in capsys.readouterr().out
    assert {method: own["seeds"] for method, own in summary.items()} == {
        "full": 1, "head-only": 2, "colora-blocks2-5": 3, "bitfit": 0,
    }  # fmt: skip
    assert all(value is None for name, value in summary["bitfit"].items() if name != "seeds")
    runs = {(r["method"], r["seed"]): r for r in rows(params, "runs.csv")}
    assert len(runs) == 12
    assert runs["head-only", "1"]["status"] == runs["bitfit", "0"]["status"] == "missing"
    assert runs["bitfit", "0"]["family"] == "bitfit" and runs["bitfit", "0"]["test_acc"] == ""
    assert (runs["full", "2"]["status"], runs["full", "2"]["failure"]) == ("failed", "loss is nan in epoch 3")
    assert runs["full", "1"]["status"] == "malformed" and "curves.csv" in runs["full", "1"]["failure"]
    found = schemas.read(params.results_dir, "contrasts").set_index("comparator")
    assert found.loc["full", "runs"] == 1 and found.loc["head-only", "runs"].tolist() == [2, 2]
    assert found.loc["bitfit", ["higher", "reason"]].tolist() == ["not tested", "no run of bitfit"]
    assert "bitfit" not in schemas.read(params.results_dir, "pairs").method.tolist()


def test_no_run_at_all_where_holes_are_allowed():
    params = fake.params(METHODS, allow_missing=True)
    assert all(own["seeds"] == 0 for own in summarise(params).values())
    assert len(rows(params, "runs.csv")) == 6 and rows(params, "curves.csv") == []


def change_predictions(change):
    def spoil(folder):
        with np.load(folder / "predictions.npz") as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(folder / "predictions.npz", **arrays)

    return spoil


def change_record(change):
    return lambda folder: fake.edit_record(folder, change)


def set_row(name, row, value):
    return change_predictions(lambda a: a[name].__setitem__(row, value))


def truncate(folder):
    path = folder / "predictions.npz"
    path.write_bytes(path.read_bytes()[:500])


def pickled(folder):
    np.savez(folder / "predictions.npz", indices=np.array([{}]), labels=np.array([{}]), probabilities=np.array([{}]))


SPOILS = {
    "failed": (change_record(lambda r: r.update(status="failed", failure="loss is nan")), "failed: loss is nan"),
    "accuracy": (change_record(lambda r: r["metrics"]["test"].update(acc=0.5)), "metrics.test.acc is 0.5"),
    "key": (
        change_record(lambda r: r["parameters"].pop("trainable")),
        "missing key 'parameters.trainable'",
    ),
    "flops": (
        change_record(lambda r: r["parameters"].update(flops=1.5)),
        "parameters.flops: Input should be a valid integer, found 1.5",
    ),
    "metrics": (change_record(lambda r: r.update(metrics=None)), "a complete record has metrics and timings"),
    "method": (change_record(lambda r: r.update(method="head-only")), "method should be 'full'"),
    "seed": (change_record(lambda r: r.update(seed=0)), "seed should be 1"),
    "count": (change_record(lambda r: r["data"].update(test=7)), "200 images, but the record says data.test = 7"),
    "json": (lambda folder: (folder / "record.json").write_text('{"method": '), "not readable as JSON"),
    "sum": (set_row("probabilities", 3, 0.5), "sum to 1"),
    "nan": (set_row("probabilities", 3, np.nan), "sum to 1"),
    "negative": (set_row("probabilities", 3, [-1, 1, 1, 0]), "sum to 1"),
    "label": (set_row("labels", 3, 4), "labels run from 0 to 4; expected 0 to 3"),
    "twice": (set_row("indices", 3, 4), "occurs twice"),
    "shape": (change_predictions(lambda a: a.update(labels=a["labels"][:-1])), r"labels should be integers \(n\)"),
    "classes": (
        change_predictions(lambda a: a.update(probabilities=a["probabilities"][:, :3])),
        r"numbers \(n, 4\), found",
    ),
    "kind": (change_predictions(lambda a: a.update(labels=a["labels"] + 0.0)), "should be integers"),
    "array": (change_predictions(lambda a: a.pop("labels")), "not readable as an archive"),
    "truncated": (truncate, "not readable as an archive"),
    "pickled": (pickled, "not readable as an archive"),
    "absent": (lambda folder: (folder / "predictions.npz").unlink(), "not readable as an archive"),
    "columns": (lambda folder: (folder / "curves.csv").write_text("epoch,lr\n1,2\n"), "'train_loss'"),
    "empty": (lambda folder: (folder / "curves.csv").write_text(""), "curves.csv: not readable as CSV"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_malformed_run_is_named(spoil):
    params = fake.params(["full"])
    fake.write_profile(params)
    change, message = SPOILS[spoil]
    change(params.run_dir("full", 1))
    with pytest.raises(UserError, match=message) as caught:
        summarise(params)
    assert "--method full --seed 1" in str(caught.value)


def test_seeds_run_with_different_settings_are_refused():
    params = fake.params(["full"])
    fake.write_profile(params)
    fake.edit_record(params.run_dir("full", 1), lambda r: r["settings"].update(weights="random"))
    with pytest.raises(UserError, match="method full: seeds 0 and 1 differ in settings: weights"):
        summarise(params)


def test_runs_on_different_weights_or_data_are_refused():
    params = fake.params(["full", "head-only"])
    fake.write_profile(params)
    for method, digest in (("full", "ab"), ("head-only", "cd")):
        described = {"weights": "w.safetensors", "weights_sha256": digest * 32}
        for seed in params.seeds:
            fake.edit_record(params.run_dir(method, seed), lambda r, d=described: r["settings"].update(d))
    with pytest.raises(UserError, match=r"w.safetensors: method full, seed 0 .*\(abababababab\), method head-only"):
        summarise(params)
    described = {"weights": "w.safetensors", "weights_sha256": "ab" * 32}
    for seed in params.seeds:
        fake.edit_record(params.run_dir("head-only", seed), lambda r: r["settings"].update(described))
    summarise(params)
    with np.load(params.run_dir("head-only", 1) / "predictions.npz") as archive:
        content = dict(archive)
    turned = (content["labels"] + 1) % 4
    correct = content["probabilities"].argmax(1) == turned
    np.savez(params.run_dir("head-only", 1) / "predictions.npz", **{**content, "labels": turned})
    fake.edit_record(params.run_dir("head-only", 1), lambda r: r["metrics"]["test"].update(acc=float(correct.mean())))
    with pytest.raises(UserError, match="image 0 of test is of class . in method full, seed 0, and of class"):
        summarise(params)


def test_methods_tested_on_different_images_are_not_paired():
    params = fake.params(METHODS)
    fake.write_profile(params)
    change_predictions(lambda a: a.update(indices=a["indices"] + 1000))(params.run_dir("colora-blocks2-5", 1))
    with pytest.raises(UserError, match="methods colora-blocks2-5 and full, seed 1: tested on different images"):
        summarise(params)


def test_order_of_test_images_does_not_matter():
    params = fake.params(METHODS)
    fake.write_profile(params)
    before = summarise(params)
    turn = change_predictions(lambda a: a.update({name: array[::-1] for name, array in a.items()}))
    turn(params.run_dir("full", 0))
    assert summarise(params) == before


def test_command_line(capsys):
    params = fake.params(["full"])
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", exclude_none=True)))
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("error: profile 'fake': 2 of 2 runs cannot be used")
    fake.write_profile(params)
    assert main([]) == 0
    assert "2 of 2 runs summarised" in capsys.readouterr().out


def test_torch_is_not_imported():
    code = "import sys, pipelines.evidence.summary, pipelines.evidence.explaining; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def with_tuning(methods=METHODS):
    params = fake.params(methods, seeds=(0, 1))
    params = params.model_copy(update={"tune": Tune(lrs=[1e-3, 1e-2, 1e-1], epochs=1)})
    fake.write_profile(params)
    for method, chosen in zip(methods, (1e-3, 1e-2, 1e-2), strict=True):
        rest = {"val_balanced_acc": 0.7, "val_auc": 0.9, "best_epoch": 1}
        nan = dict.fromkeys([*rest, "val_acc", "val_loss"]) | {"failure": "training loss is nan"}
        trials = [
            {"lr": 1e-3, "seed": 0, "val_acc": 0.7, "val_loss": 0.9, **rest, "failure": None},
            {"lr": 1e-2, "seed": 0, "val_acc": 0.8, "val_loss": 0.8, **rest, "failure": None},
            {"lr": 1e-1, "seed": 0, **nan},
            {"lr": 1e-2, "seed": 1, "val_acc": 0.9, "val_loss": 0.4, **rest, "failure": None},
        ]
        path = params.results_dir / "tune" / f"{method}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"seeds": [0], "chosen": chosen, "trials": trials}))
    return params


def test_every_rate_is_listed_with_its_mean_score_and_the_chosen_one():
    params = with_tuning()
    summarise(params)
    listed = rows(params, "tuning.csv")
    assert len(listed) == 9 and [row["lr"] for row in listed if row["chosen"] == "True"] == ["0.001", "0.01", "0.01"]
    assert float(listed[1]["val_acc"]) == pytest.approx(0.85) and listed[1]["seeds"] == "2"
    assert float(listed[1]["val_loss"]) == pytest.approx(0.6) and listed[0]["seeds"] == "1"
    assert listed[2] == {
        "method": "full", "lr": "0.1", "seeds": "1", "val_acc": "", "val_balanced_acc": "",
        "val_auc": "", "val_loss": "", "chosen": "False",
        "failure": "training loss is nan",
    }  # fmt: skip


def test_a_missing_or_odd_tuning_record_is_named():
    params = with_tuning()
    path = params.results_dir / "tune" / "full.json"
    path.write_text(json.dumps({"chosen": 1}))
    with pytest.raises(UserError, match="tune/full.json: not a tuning record.*pipelines.tune --method full"):
        summarise(params)
    path.write_text("{")
    with pytest.raises(RecordError, match="tune/full.json: not readable.*pipelines.tune --method full"):
        summarise(params)
    path.unlink()
    with pytest.raises(UserError, match="tune/full.json: no such file; run `python -m pipelines.tune --method full`"):
        summarise(params)


def test_a_method_with_a_stated_rate_has_no_trials():
    params = with_tuning()
    path = params.results_dir / "tune" / "head-only.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chosen": None, "trials": []}))
    summarise(params)
    assert {row["method"] for row in rows(params, "tuning.csv")} == {"full", "colora-blocks2-5"}
    # Where the profile's section states it, a file is not even asked for.
    path.unlink()
    method = {**params.method, "head-only": {**params.method["head-only"], "train": {"lr": 1e-3}}}
    summarise(params.model_copy(update={"method": method}))
    assert {row["method"] for row in rows(params, "tuning.csv")} == {"full", "colora-blocks2-5"}


def test_flops_are_listed():
    params = fake.params(METHODS)
    fake.write_profile(params)
    summarise(params)
    summary = json.loads((params.results_dir / "summary.json").read_text())
    assert {own["flops"] for own in summary.values()} == {30_936_000_000}
    assert {row["flops"] for row in rows(params, "runs.csv")} == {"30936000000"}


def test_seeds_with_different_networks_are_refused():
    params = fake.params(["full"])
    fake.write_profile(params)
    fake.edit_record(params.run_dir("full", 1), lambda r: r["parameters"].update(flops=1))
    with pytest.raises(UserError, match="method full: seeds 0 and 1 differ in parameters: flops"):
        summarise(params)


def test_trials_on_other_seeds_than_the_profiles_are_refused():
    params = with_tuning()
    with pytest.raises(UserError, match=r"on seeds \[0\], where tune.seeds has \[0, 1\].*pipelines.tune --method"):
        summarise(params.model_copy(update={"tune": Tune(lrs=[1e-3, 1e-2, 1e-1], epochs=1, seeds=[0, 1])}))
