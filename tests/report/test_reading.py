"""Result files in memory: what is read, and what is said of files that cannot be used."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import schemas
from pipelines.files.errors import UserError
from report import drawing
from report.reading import load, ranked
from report.reading.explained import read_explained, read_scans
from report.sections.beside_paper import counterparts


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    return tmp_path / "fake"


def test_methods_hold_the_summary_and_their_looks(results, folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert list(results.methods.index) == list(summary)
    for name, row in results.methods.iterrows():
        assert row.acc_mean == summary[name]["acc_mean"] and row.planned == 5
        assert row.color == drawing.HUES[row.kind] and row.shown == name
    assert results.methods.kind["vit-full"] == "ViT" and results.methods.group["bitfit"] == "CNN"
    assert results.reference == "full" and results.patients


def test_the_declared_methods_come_first_one_of_every_kind(results):
    assert results.declared[:3] == ["colora-blocks2-5", "full", "head-only"]
    leading = results.leading(6)
    assert leading[0] == "colora-blocks2-5" and len(leading) == 6
    assert results.methods.kind[leading].nunique() == 6
    assert set(results.leading(99)) == set(results.declared)


def test_what_did_not_learn_is_no_finding(copy):
    runs = pd.read_csv(copy / "runs.csv")
    runs.loc[runs.method == "medmamba", "train_acc"] = 0.27
    runs.to_csv(copy / "runs.csv", index=False)
    found = load(copy)
    assert "medmamba" not in found.learnt and "full" in found.learnt and "medmamba" in found.methods.index


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{}", "numbers or null"),
        ("summary.json", "[]", "expected a JSON object"),
        ("summary.json", '{"full": {"seeds": 1}}', "should have numbers or null"),
        ("runs.csv", "method,seed\nfull,0\n", "no column"),
        ("contrasts.csv", "data\nx\n", "no column"),
        ("curves.csv", "\x00\x01", "curves.csv"),
        ("cost.csv", "method\nfull\n", r"pipelines\.cost"),
        ("data/card.json", '{"settings": 3}', "not a data card"),
        ("explain.npz", "no archive", r"pipelines\.explain"),
        ("hard_scans.npz", "no archive", r"pipelines\.explain"),
    ],
)
def test_files_that_cannot_be_used_are_named(copy, name, content, message):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load(copy)
    assert name.rpartition("/")[2] in str(error.value)


def test_summary_and_runs_must_agree(copy):
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "stranger": summary["full"]}))
    with pytest.raises(UserError, match="stranger not in both"):
        load(copy)


def test_without_files_of_other_stages_there_are_no_rows(copy):
    for name in ("cost", "cost_growth", "external", "robustness"):
        (copy / f"{name}.csv").unlink()
    found = load(copy)
    assert found.cost.empty and "step_ratio" in found.cost and found.external.empty and found.explained is None


def test_a_profile_of_few_labels_stands_on_what_was_run(results):
    """Only the smallest share has runs: it is the whole, and the declared contrasts are its own."""
    own = results.methods
    few = own.assign(share=0.1, seeds=3).set_axis([f"{name}-10" for name in own.index])
    methods = pd.concat([own.assign(seeds=0), few])
    contrasts = pd.concat([
        results.contrasts.assign(difference=np.nan),
        results.contrasts.assign(share=0.1, method=results.contrasts.method + "-10"),
    ])  # fmt: skip
    found = replace(results, methods=methods, contrasts=contrasts)
    assert list(found.whole.index) == list(few.index)
    assert set(found.declared_contrasts.share) == {0.1} and len(found.declared_contrasts) > 1
    assert found.declared[0] == "colora-blocks2-5-10"


def explained(m=2, a=1, **changes):
    return {
        "images": np.zeros((m, 8, 8), np.uint8), "indices": np.arange(m), "labels": np.zeros(m, int),
        "shows": np.array(["agreement", "disagreement"]), "methods": np.array(["full"]),
        "predicted": np.zeros((a, m), int),
        "probability": np.ones((a, m)), "classes": np.array(["x", "y"]), "seed": np.array(0), "pool": np.array(9),
        "maps0": np.zeros((m, 2, 2), np.uint8), **changes,
    }  # fmt: skip


def test_pictures_are_read_where_the_results_have_their_methods(tmp_path):
    path = tmp_path / "explain.npz"
    np.savez(path, **explained())
    found = read_explained(path, ["full"])
    assert found.pool == 9 and found.maps[0].shape == (2, 2, 2)
    with pytest.raises(UserError, match="shows full, which the results do not have"):
        read_explained(path, ["other"])
    np.savez(tmp_path / "hard_scans.npz", image=np.array([7]), pixels=np.ones((1, 4, 4), np.uint8))
    assert read_scans(tmp_path / "hard_scans.npz")[7].tolist() == np.ones((4, 4)).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": None}, "seed"),
        ({"maps0": None}, "maps0"),
        ({"maps0": np.zeros((2, 2), np.uint8)}, "maps0 should be unsigned integers"),
        ({"predicted": np.zeros((1, 1), int)}, "predicted should be"),
        ({"images": np.zeros((2, 8, 8))}, "images should be unsigned integers"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, r"images should be .* \(n, h, w, 3\)"),
        ({"labels": np.full(2, 5)}, "class 5 of 2"),
    ],
)
def test_pictures_that_do_not_fit_each_other_are_told(tmp_path, changes, message):
    path = tmp_path / "explain.npz"
    np.savez(path, **{name: array for name, array in explained(**changes).items() if array is not None})
    with pytest.raises(UserError, match=f"explain.npz: not what that stage writes .*{message}.*; run"):
        read_explained(path, ["full", "other"])


@pytest.mark.parametrize("content", [{"image": np.arange(2)}, {"image": np.arange(2), "pixels": np.zeros((1, 4, 4))}])
def test_hard_scans_that_do_not_fit_each_other_are_told(tmp_path, content):
    np.savez(tmp_path / "hard_scans.npz", **content)
    with pytest.raises(UserError, match="hard_scans.npz: not what that stage writes .*pixels.*; run"):
        read_scans(tmp_path / "hard_scans.npz")


def paper_of(*rows):
    columns = ["method", "backbone", "dataset", "accuracy"]
    return pd.DataFrame([dict(zip(columns, row)) for row in rows])


def test_the_papers_figures_of_the_own_backbone_are_preferred():
    methods = pd.DataFrame(
        {"backbone": ["resnet50", "vgg16", "deit_tiny_patch16_224", "medmamba"],
        "group": ["CNN", "CNN", "ViT", "state space"]},
        index=["colora", "full", "vit-full", "medmamba"],
    )  # fmt: skip
    paper = paper_of(
        ("colora", "vgg16", "octmnist", 0.96), ("colora", "resnet50", "octmnist", 0.95),
        ("full", "vgg16", "octmnist", 0.91),
        ("full", "vgg16", "bloodmnist", 0.5), ("vit-full", "vgg16", "octmnist", 0.8),
        ("medmamba", "medmamba-t", "octmnist", 0.9),
        ("head-only", "vgg16", "octmnist", np.nan),
    )  # fmt: skip
    found = counterparts(methods, paper, "folder").set_index("method").accuracy
    assert found.to_dict() == {"colora": 0.95, "full": 0.91, "medmamba": 0.9}
    assert counterparts(methods, paper, "bloodmnist").accuracy.tolist() == [0.5]


def test_vgg16s_figures_stand_beside_another_cnn_only_where_there_is_no_vgg16():
    paper = paper_of(("full", "vgg16", "octmnist", 0.91), ("head-only", "resnet50", "octmnist", 0.9))
    methods = pd.DataFrame(
        {"backbone": ["resnet50"] * 2, "group": "CNN"}, index=["resnet50-full", "resnet50-head-only"]
    )
    assert counterparts(methods, paper, "folder").accuracy.tolist() == [0.91, 0.9]
    methods.loc["full"] = ["vgg16", "CNN"]
    assert counterparts(methods, paper, "folder").method.tolist() == ["resnet50-head-only", "full"]


def test_the_mean_of_fewer_runs_is_not_ranked():
    methods = pd.DataFrame({"seeds": [5, 10, 1, 0], "planned": [5, 15, 5, 5], "second": False}, index=list("abcd"))
    assert list(ranked(methods).index) == ["a", "b"]
    assert list(ranked(methods.loc[["c", "d"]]).index) == ["c"]
    assert ranked(methods.loc[["d"]]).empty


def test_a_method_counts_once_though_it_ran_twice(copy):
    rows = [
        {"data": "test", "metric": "accuracy", "role": "again", "reference": "full", "runs": 3, **own}
        for own in ({"method": "bitfit"}, {"method": "head-only"})
    ]
    schemas.frame("pairs", rows).to_csv(copy / "pairs.csv", index=False)
    summary = json.loads((copy / "summary.json").read_text())
    summary["bitfit"]["lr"] = summary["full"]["lr"]
    summary["head-only"]["lr"] = 2 * summary["full"]["lr"]  # another rate, another method
    (copy / "summary.json").write_text(json.dumps(summary))
    results = load(copy)
    assert results.methods.second[results.methods.second].index.tolist() == ["bitfit"]
    assert set(results.ranked.index) == set(results.methods.index) - {"bitfit"}
