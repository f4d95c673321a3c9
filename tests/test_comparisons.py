"""Which methods `summarise` compares, and that the comparisons are those of the statistics."""

import json
import shutil

import numpy as np
import pytest

from pipelines.evidence import stats
from pipelines.evidence.summary import summarise
from pipelines.runs.reading import SummaryError
from report import comparisons
from report.page import chosen_colora
from report.results import load
from tests import fake_results as fake
from tests import test_summarise
from tests.test_summarise import METHODS, accuracies, change_predictions, predictions, rows

_work_in = test_summarise._work_in


def compared(params):
    return {(row["method"], row["against"]): row["reference"] for row in rows(params, "comparisons.csv")}


def test_an_method_is_not_compared_with_itself_alone():
    params = fake.params(["full", "head-only"])
    second = {"full-2": {"family": "full"}, "head-only-mlp": {"family": "head_only", "head": "mlp"}}
    params = params.model_copy(update={"method": {**params.method, **second}})
    fake.write_profile(params, like={"full-2": "full", "head-only-mlp": "head-only"})
    summarise(params)
    assert compared(params) == {
        ("full", "head-only"): "head-only",
        ("head-only", "full"): "full",
        ("full-2", "full"): "full",
        ("full-2", "head-only"): "head-only",
        ("head-only-mlp", "full"): "full",
        ("head-only-mlp", "head-only"): "head-only",
    }


def test_backbones_have_their_own_references():
    methods = ["full", "head-only", "vit-full", "vit-head", "vit-lora", "resnet50-full", "resnet50-colora-blocks2-5"]
    params = fake.params([*methods, "convnext-colora-blocks2-5"])
    fake.write_profile(params)
    summarise(params)
    found = compared(params)
    assert found["vit-lora", "full"] == "vit-full" and found["vit-lora", "head-only"] == "vit-head"
    assert found["resnet50-colora-blocks2-5", "full"] == "resnet50-full"
    assert ("resnet50-colora-blocks2-5", "head-only") not in found and ("vit-full", "full") not in found
    assert "convnext-colora-blocks2-5" not in {
        method for method, _ in found
    }  # pretrained, no reference on its backbone


def test_networks_from_scratch_are_compared_with_the_first_references():
    methods = ["resnet50-full", "full", "head-only", "vim", "medmnist-resnet18", "medmnist-resnet18-28"]
    params = fake.params(methods)
    fake.write_profile(params)
    summarise(params)
    found = compared(params)
    for method in ("vim", "medmnist-resnet18", "medmnist-resnet18-28"):
        assert (found[method, "full"], found[method, "head-only"]) == ("resnet50-full", "head-only")
    gap = np.mean(accuracies(params, "vim")) - np.mean(accuracies(params, "resnet50-full"))
    differences = {(r["method"], r["against"]): float(r["difference"]) for r in rows(params, "comparisons.csv")}
    assert differences["vim", "full"] == pytest.approx(gap, abs=1e-6)


def test_networks_from_scratch_tested_on_different_images_are_refused():
    params = fake.params(["full", "vim"])
    fake.write_profile(params)
    change_predictions(lambda a: a.update(indices=a["indices"] + 1))(params.run_dir("vim", 0))
    with pytest.raises(SummaryError, match="methods vim and full, seed 0: tested on different images"):
        summarise(params)


RIVALS = ["full", "head-only", "colora-blocks2-5", "colora-block5", "vit-full", "vit-lora", "vim", "kan-head", "medkan"]


def set_val(params, method, *values):
    """Give a method's seeds these validation accuracies, in the records and at their best epochs."""
    for seed, value in zip(params.seeds, values, strict=True):
        folder = params.run_dir(method, seed)
        fake.edit_record(folder, lambda r, value=value: r["metrics"]["val"].update(acc=value))
        best = json.loads((folder / "record.json").read_text())["metrics"]["best_epoch"]
        head, *lines = (folder / "curves.csv").read_text().splitlines()
        row = dict(zip(head.split(","), lines[best - 1].split(","), strict=True)) | {"val_acc": str(value)}
        lines[best - 1] = ",".join(row.values())
        (folder / "curves.csv").write_text("\n".join([head, *lines]) + "\n")


def test_the_best_colora_method_by_validation_meets_the_best_of_each_group():
    params = fake.params(RIVALS, seeds=(0, 1, 2))
    fake.write_profile(params)
    # Not those that are best on the test images.
    for method in RIVALS:
        set_val(params, method, *(3 * [0.99 if method in ("colora-block5", "vit-full", "vim", "kan-head") else 0.9]))
    summarise(params)
    own = [r for r in rows(params, "comparisons.csv") if r["against"] not in ("full", "head-only")]
    assert [(r["method"], r["against"], r["reference"]) for r in own] == [
        ("colora-block5", "ViT", "vit-full"), ("colora-block5", "state space", "vim"),
        ("colora-block5", "KAN", "kan-head"),
    ]  # fmt: skip
    for row in own:
        gap = np.mean(accuracies(params, "colora-block5")) - np.mean(accuracies(params, row["reference"]))
        assert float(row["difference"]) == pytest.approx(gap, abs=1e-6)
    for name in ("p", "p_swap", "tost_p", "auc_p"):  # a family of these three
        assert [float(r[f"{name}_holm"]) for r in own] == pytest.approx(
            stats.holm([float(r[name]) for r in own]), rel=1e-4
        )
    assert len([r for r in rows(params, "mcnemar.csv") if r["against"] == "KAN"]) == 3


def test_colora_is_compared_with_the_best_of_each_peer_on_its_backbone():
    methods = ["full", "bitfit", "conv-lora-r4", "conv-lora-r8", "colora-blocks2-5", "vit-bitfit"]
    params = fake.params(methods, seeds=(0, 1, 2))
    fake.write_profile(params)
    set_val(params, "conv-lora-r8", 0.9, 0.9, 0.9)
    set_val(params, "conv-lora-r4", 0.1, 0.1, 0.1)
    set_val(params, "vit-bitfit", 0.99, 0.99, 0.99)  # another network
    summarise(params)
    own = [row for row in rows(params, "comparisons.csv") if row["against"] in ("bitfit", "adapters", "conv_lora")]
    found = [(row["method"], row["against"], row["reference"]) for row in own]
    assert found == [("colora-blocks2-5", "bitfit", "bitfit"), ("colora-blocks2-5", "conv_lora", "conv-lora-r8")]
    assert [float(row["p_holm"]) for row in own] == pytest.approx(stats.holm([float(r["p"]) for r in own]), rel=1e-4)
    note = comparisons.comparisons(load(params.results_dir)).note
    assert "The last rows set colora-blocks2-5 against the other parameter-efficient methods" in note


def test_the_colora_method_is_one_on_the_backbone_of_the_first():
    params = fake.params(
        ["full", "colora-block5", "colora-blocks2-5", "resnet50-colora-blocks2-5", "vit-lora"], seeds=(0,)
    )
    fake.write_profile(params)
    set_val(params, "colora-block5", 0.8)
    set_val(params, "colora-blocks2-5", 0.9)
    set_val(params, "resnet50-colora-blocks2-5", 0.99)
    summarise(params)
    assert compared(params)["colora-blocks2-5", "ViT"] == "vit-lora"
    assert chosen_colora(load(params.results_dir)) == "colora-blocks2-5"


def test_comparisons_with_other_groups_change_no_others():
    """Adding a network without references of its own leaves every other row as it was."""
    few, more = (fake.params(methods, seeds=(0, 1)) for methods in (METHODS, [*METHODS, "vit-lora"]))
    fake.write_profile(more)
    summarise(few)
    before = rows(few, "comparisons.csv")
    summarise(more)
    after = rows(more, "comparisons.csv")
    assert after[: len(before)] == before and [r["against"] for r in after[len(before) :]] == ["ViT"]


def test_of_methods_that_tie_the_first_is_compared_as_in_the_report():
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit; the report adds in its own order."""
    params = fake.params(["full", "colora-blocks2-5", "colora-block5", "vit-full", "vit-lora"], seeds=(0, 1, 2))
    fake.write_profile(params)
    for first, second in (("colora-blocks2-5", "colora-block5"), ("vit-full", "vit-lora")):
        set_val(params, first, 0.1, 0.2, 0.3)
        set_val(params, second, 0.3, 0.2, 0.1)
    summarise(params)
    (row,) = (r for r in rows(params, "comparisons.csv") if r["against"] == "ViT")
    assert (row["method"], row["reference"]) == ("colora-blocks2-5", "vit-full")
    assert chosen_colora(load(params.results_dir)) == row["method"]


def test_an_method_without_a_run_meets_no_other_group():
    methods = ["full", "colora-blocks2-5", "colora-block5", "vit-lora", "vit-full"]
    params = fake.params(methods, seeds=(0,), allow_missing=True)
    fake.write_profile(params, skip=[("colora-blocks2-5", 0), ("vit-lora", 0)])
    summarise(params)
    assert compared(params)["colora-block5", "ViT"] == "vit-full"
    shutil.rmtree(params.run_dir("colora-block5", 0))
    summarise(params)
    assert "ViT" not in {against for _, against in compared(params)}


@pytest.mark.parametrize("folds", [False, True])
def test_comparisons_are_those_of_the_statistics(folds):
    params = fake.params([*METHODS, "bitfit"], seeds=(0, 1, 2))
    fake.write_profile(params, folds=folds)
    summarise(params)
    row = next(r for r in rows(params, "comparisons.csv") if (r["method"], r["against"]) == ("bitfit", "full"))
    sides = [[predictions(params, method, s) for s in params.seeds] for method in ("bitfit", "full")]
    units = [np.arange(200) + 200 * s * folds for s in params.seeds]
    found = stats.paired_difference(*sides, units=units)
    auc = stats.paired_difference(*sides, "macro_auc", units=units)
    expected = {
        "difference": found.mean, "lo": found.interval()[0], "hi": found.interval()[1], "p": found.p_value(),
        "prob_improvement": found.improvement(), "margin": 0.01, "tost_p": found.equivalence_p(0.01),
        "seeds_needed": found.seeds_needed(0.01), "auc_difference": auc.mean, "auc_lo": auc.interval()[0],
        "auc_hi": auc.interval()[1], "auc_p": auc.p_value(), "test_images": 600 if folds else 200,
    }  # fmt: skip
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    for family in ("full", "head-only"):
        together = [r for r in rows(params, "comparisons.csv") if r["against"] == family]
        for name in ("p", "p_swap", "tost_p", "auc_p"):
            adjusted = stats.holm([float(r[name]) for r in together])
            assert [float(r[f"{name}_holm"]) for r in together] == pytest.approx(adjusted, rel=1e-4)
        assert [r["equivalent"] for r in together] == [str(float(r["tost_p_holm"]) < 0.05) for r in together]
    own = [r for r in rows(params, "mcnemar.csv") if (r["method"], r["reference"]) == ("bitfit", "full")]
    for (labels, a), (_, b), line in zip(*sides, own, strict=True):
        only, other, p = stats.mcnemar(a.argmax(1) == labels, b.argmax(1) == labels)
        assert (int(line["only_method"]), int(line["only_reference"])) == (only, other)
        assert float(line["p"]) == pytest.approx(p, rel=1e-5)
    assert int(row["mcnemar_seeds"]) == sum(float(line["p"]) < 0.05 for line in own)


def test_ranks_are_over_seeds():
    params = fake.params([*METHODS, "bitfit"], seeds=(0, 1, 2))
    fake.write_profile(params)
    summarise(params)
    values = np.array([accuracies(params, method) for method in params.method]).T
    listed = rows(params, "ranks.csv")
    assert [float(r["mean_rank"]) for r in listed] == pytest.approx(stats.mean_ranks(values), rel=1e-5)
    assert {(r["seeds"], r["methods"]) for r in listed} == {("3", "4")}
    assert float(listed[0]["cd"]) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 3)), rel=1e-3)
    assert float(listed[0]["friedman_p"]) == pytest.approx(stats.friedman(values)[1], rel=1e-5)


def write_patients(params, owners):
    folder = params.results_dir / "data"
    folder.mkdir(exist_ok=True)
    lines = [f"{image},{patient}" for image, patient in enumerate(owners)]
    (folder / "patients.csv").write_text("\n".join(["image,patient", *lines]) + "\n")


def test_patients_are_resampled_with_all_their_images():
    params = fake.params(METHODS, seeds=(0, 1))
    fake.write_profile(params)
    summarise(params)
    before = {r["method"]: r for r in rows(params, "comparisons.csv") if r["against"] == "full"}
    assert {r["n_test_patients"] for r in rows(params, "runs.csv")} == {""}
    owners = np.arange(200) // 4 + 1000  # numbers need not start at zero
    write_patients(params, owners)
    summary = summarise(params)
    assert {r["n_test_patients"] for r in rows(params, "runs.csv")} == {"50"}
    tests = [predictions(params, "full", s) for s in params.seeds]
    limits = stats.interval(tests, units=[owners - 1000] * 2)
    assert (summary["full"]["acc_lo"], summary["full"]["acc_hi"]) == pytest.approx(limits, rel=1e-5)
    after = {r["method"]: r for r in rows(params, "comparisons.csv") if r["against"] == "full"}
    assert after["head-only"]["difference"] == before["head-only"]["difference"]
    assert after["head-only"]["lo"] != before["head-only"]["lo"]
    assert after["head-only"]["p_swap"] != before["head-only"]["p_swap"] or before["head-only"]["p_swap"] == "0.0001"


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
    with pytest.raises(SummaryError, match=message) as caught:
        summarise(params)
    assert "python -m pipelines.prepare" in str(caught.value)
