"""Which methods are set against which, that the numbers are those of the statistics, and whose the test images are."""

import numpy as np
import pytest

from pipelines.evidence import outcomes, pairs, schemas, stats
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
from pipelines.runs.reading import read_runs
from tests import fake_results as fake
from tests.evidence.test_summarise import METHODS, _work_in, accuracies, change_predictions  # noqa: F401


def references(methods, declared=None, extra=None):
    params = fake.params(methods)
    settings = {
        method: {**params.model, **section, "train": {"share": 1.0}} for method, section in params.method.items()
    }
    settings |= {name: {**params.model, **section, "train": {"share": 1.0}} for name, section in (extra or {}).items()}
    return {method: pairs.references(method, settings, declared) for method in settings}


def test_a_method_is_not_compared_with_itself():
    extra = {"full-2": {"family": "full"}, "head-only-mlp": {"family": "head_only", "head": "mlp"}}
    assert references(["full", "head-only"], extra=extra) == {
        "full": {"head_only": "head-only"},
        "head-only": {"full": "full"},
        "full-2": {"full": "full", "head_only": "head-only", "again": "full"},
        "head-only-mlp": {"full": "full", "head_only": "head-only"},
    }


def test_backbones_have_their_own_references():
    methods = ["full", "head-only", "vit-full", "vit-head", "vit-lora", "resnet50-full", "resnet50-colora-blocks2-5"]
    found = references([*methods, "convnext-colora-blocks2-5"])
    assert found["vit-lora"] == {"full": "vit-full", "head_only": "vit-head"}
    assert found["resnet50-colora-blocks2-5"] == {"full": "resnet50-full"}
    assert found["vit-full"] == {"head_only": "vit-head"}
    assert found["convnext-colora-blocks2-5"] == {}  # pretrained, no reference on its backbone


def test_networks_from_scratch_are_compared_with_the_first_references():
    found = references(["resnet50-full", "full", "head-only", "vim", "medmnist-resnet18"], declared="full")
    assert found["vim"] == found["medmnist-resnet18"]
    assert found["vim"] == {"declared": "full", "full": "resnet50-full", "head_only": "head-only"}


def test_a_share_of_the_labels_has_references_of_its_own():
    params, _ = fake.label_params(("full", "colora-blocks2-5"), range(2), (0.1, 1))
    settings = {
        method: {**params.model, **section, "train": {"share": 1.0, **section.get("train", {})}}
        for method, section in params.method.items()
    }
    assert pairs.references("colora-blocks2-5-10", settings, "colora-blocks2-5") == {"full": "full-10"}
    assert pairs.references("full", settings, "colora-blocks2-5") == {"declared": "colora-blocks2-5"}


def test_a_method_at_another_rate_stands_beside_the_first():
    tuned = {
        "family": "colora",
        "backbone": "vgg16",
        "blocks": [2, 5],
        "train": {"share": 1.0, "lr": 1e-3, "epochs": 8},
    }
    settings = {
        "a": tuned, "a-3e-3": {**tuned, "train": {**tuned["train"], "lr": 3e-3}},
        "longer": {**tuned, "train": {**tuned["train"], "lr": 3e-3, "epochs": 9}}, "b": {**tuned, "blocks": [1, 5]},
    }  # fmt: skip
    found = {method: pairs.references(method, settings) for method in settings}
    assert found == {"a": {}, "a-3e-3": {"again": "a"}, "longer": {}, "b": {}}


def test_a_reference_that_has_a_second_run_on_the_same_machine_is_that_run():
    params = fake.params(["full", "head-only", "colora-blocks2-5", "conv-lora-r8"])
    settings = {
        method: {**params.model, **section, "train": {"share": 1.0, "lr": 1e-3}}
        for method, section in params.method.items()
    }
    for name in ("full", "colora-blocks2-5"):
        settings[f"{name}-again"] = dict(settings[name])
    settings["full-faster"] = {**settings["full"], "train": {"share": 1.0, "lr": 3e-3}}  # not the same method
    settings = {"colora-earlier": dict(settings["colora-blocks2-5"]), **settings}
    machines = {name: dict.fromkeys(range(5), "GPU") for name in settings}
    there = ["conv-lora-r8", "colora-blocks2-5-again", "full-again", "full-faster"]
    machines |= {name: dict.fromkeys(range(5), "CPU") for name in there}

    def found(method):
        return pairs.references(method, settings, "colora-blocks2-5", machines)

    assert found("conv-lora-r8") == {
        "declared": "colora-blocks2-5-again",
        "full": "full-again",
        "head_only": "head-only",  # it has no second run
    }
    assert found("colora-blocks2-5-again")["full"] == "full-again"
    assert found("colora-blocks2-5") == {"full": "full", "head_only": "head-only", "again": "colora-earlier"}
    assert found("full-again") == {
        "declared": "colora-blocks2-5-again", "full": "full", "head_only": "head-only", "again": "full",
    }  # fmt: skip
    machines["full-again"] = {0: "CPU", 1: "CPU"}  # while it is trained it would take runs away from the pair
    assert found("conv-lora-r8")["full"] == "full"
    machines["conv-lora-r8"] = {0: "CPU", 1: "CPU"}
    assert found("conv-lora-r8")["full"] == "full-again"
    machines["conv-lora-r8"] = {0: "another CPU", 1: "another CPU"}
    expected = {"declared": "colora-blocks2-5", "full": "full", "head_only": "head-only"}
    assert found("conv-lora-r8") == expected
    machines["conv-lora-r8"] = {0: "GPU", 1: "GPU"}  # where the reference itself was trained
    assert found("conv-lora-r8") == expected
    machines["full-again"] = {0: "GPU", 1: "CPU"}  # as many runs on each machine, but not of the same seeds
    machines["conv-lora-r8"] = {0: "CPU", 1: "GPU"}
    assert found("conv-lora-r8")["full"] == "full"


@pytest.mark.parametrize("folds", [0, 3])
def test_pairs_are_those_of_the_statistics(folds):
    params = fake.params([*METHODS, "bitfit"], seeds=range(6))
    fake.write_profile(params, folds=folds, n_test=60)
    summarise(params)
    rows = schemas.read(params.results_dir, "pairs")
    row = rows.query("method == 'bitfit' and role == 'full' and metric == 'accuracy'").iloc[0]
    gaps = np.array(accuracies(params, "bitfit")) - accuracies(params, "full")
    assert row.difference == pytest.approx(gaps.mean(), rel=1e-5) and row.runs == 6
    assert row.images == (180 if folds else 60)
    test = outcomes.gather(params, read_runs(params)[0])["test"]
    for metric in ("accuracy", "auc"):
        found = outcomes.difference(outcomes.paired(test["bitfit"], test["full"]), metric)
        row = rows.query("method == 'bitfit' and role == 'full' and metric == @metric").iloc[0]
        assert (row.lo, row.hi) == pytest.approx(found.interval(), rel=1e-5)
    declared = rows[rows.role == "declared"]
    assert set(declared.reference) == {"colora-blocks2-5"} and set(declared.method) == {"full", "head-only", "bitfit"}


@pytest.mark.parametrize(("method", "other"), [("colora-blocks2-5", "full"), ("vim", "full")])
def test_methods_tested_on_different_images_are_refused(method, other):
    params = fake.params([other, method])
    fake.write_profile(params)
    change_predictions(lambda a: a.update(indices=a["indices"] + 1000))(params.run_dir(method, 1))
    with pytest.raises(UserError, match=f"methods {method} and {other}, seed 1: tested on different images"):
        summarise(params)


def test_patients_are_drawn_with_all_their_images():
    params = fake.params(METHODS, seeds=(0, 1))
    fake.write_profile(params)
    without = summarise(params)["full"]
    assert schemas.read(params.results_dir, "runs").n_test_patients.isna().all()
    fake.write_patients(params, 200, each=4)
    own = summarise(params)["full"]
    assert set(schemas.read(params.results_dir, "runs").n_test_patients) == {50}
    assert own["acc_mean"] == without["acc_mean"] and own["acc_lo"] != without["acc_lo"]
    values, influence = [], []
    for seed in params.seeds:  # the jackknife of a mean over patients of four images
        with np.load(params.run_dir("full", seed) / "predictions.npz") as archive:
            means = (archive["probabilities"].argmax(1) == archive["labels"]).reshape(50, 4).mean(1)
        values.append(means.mean())
        influence.append((means - means.mean()) / np.sqrt(50 * 49))
    expected = stats.estimate(np.array(values), np.array(influence), 50, grid=1 / 200).share_interval(counted=[50])
    assert (own["acc_lo"], own["acc_hi"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,patient\n0,0\n1,0\n", "no patient for 198 test images of method full, seed 0, the first being image 2"),
        ("image,patient\n0,0\n0,1\n", "not a table of image and patient numbers"),
        ("image,patient\n0,a\n", "not a table of image and patient numbers"),
        ("image\n0\n", "not a table of image and patient numbers"),
    ],
)
def test_patients_that_do_not_fit_are_refused(content, message):
    params = fake.params(["full"])
    fake.write_profile(params)
    (params.results_dir / "data").mkdir()
    (params.results_dir / "data" / "patients.csv").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        summarise(params)
    assert "python -m pipelines.prepare" in str(caught.value)
