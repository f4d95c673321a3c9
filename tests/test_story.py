"""From a clinic's own scans to networks in use, command by command, as docs/own-data.md and docs/predict.md tell it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import baselines
import colora
from pipelines import evaluate, export, predict, prepare, summarise, train
from pipelines.training.step import seed_everything
from report.__main__ import main as report
from tests.prediction.conftest import CLASSES, write_scans


def profile(source: dict) -> dict:
    return {
        "profile": "clinic",
        "seeds": [0, 1],
        "data": {"image_size": 32, **source},
        "model": {"backbone": "smallcnn", "weights": "random"},
        "train": {"epochs": 1, "batch_size": 16, "lr": 2e-3, "input": "unit"},
        "method": {"full": {"family": "full"}, "colora": {"family": "colora", "blocks": [2, 5]}},
    }


FOLDER = {"source": "folder", "folder": {"path": "scans", "folds": 3, "val_share": 0.5}}
LIST = {"source": "manifest", "manifest": {"path": "scans/list.csv", "folds": 3, "val_share": 0.5}}


def write_list(root: Path) -> None:
    files = sorted(root.glob("*/*.png"))
    rows = [f"{file.relative_to(root).as_posix()},{file.parent.name},{file.stem.split('-')[1]}" for file in files]
    (root / "list.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")


def fingerprints() -> dict[str, str]:
    paths = sorted(Path("results/clinic/runs").glob("*/*/record.json"))
    return {"/".join(path.parts[-3:-1]): json.loads(path.read_text())["fingerprint"] for path in paths}


def do(command, *arguments) -> None:
    assert command([*map(str, arguments)]) == 0, (command, arguments)


def test_from_own_scans_to_predictions(workdir, capsys):
    # Class folders, and the same scans as a list: the same images with the same patients.
    write_scans(Path("scans"), 0, patients=6)
    write_list(Path("scans"))
    tables = {}
    for name, source in (("list", LIST), ("folder", FOLDER)):
        Path("params.yaml").write_text(yaml.safe_dump(profile(source), sort_keys=False))
        do(prepare.main)
        listed, stored = pd.read_csv("data/clinic/files.csv", dtype=str), np.load("data/clinic/images.npy")
        tables[name] = {row.file: (row.patient, stored[row.Index]) for row in listed.itertuples()}
    assert tables["list"].keys() == tables["folder"].keys() and len(tables["list"]) == 36
    for file, (patient, image) in tables["list"].items():
        assert tables["folder"][file][0] == patient == file.split("-")[1]
        np.testing.assert_array_equal(image, tables["folder"][file][1])

    # Train two methods, summarise, report: about these data, without the paper's claims.
    for method in ("full", "colora"):
        do(train.main, "--method", method, "--device", "cpu")
    do(summarise.main)
    do(report)
    page = Path("report/clinic/README.md").read_text()
    assert "arxiv" not in page.lower() and "OCTMNIST" not in page and all(name in page for name in CLASSES)
    assert list(json.loads(Path("results/clinic/summary.json").read_text())) == ["full", "colora"]
    capsys.readouterr()
    do(train.main, "--method", "full", "--device", "cpu")
    assert capsys.readouterr().out.count("complete, kept") == 2

    # More scans of the same size and kind: prepared anew, every run is stale, and half of them anew is no comparison.
    before = fingerprints()
    write_scans(Path("scans"), 100, patients=1)
    do(prepare.main)
    assert "data/clinic: 42 images written" in capsys.readouterr().out
    do(train.main, "--method", "full", "--device", "cpu")
    assert summarise.main([]) == 1
    capsys.readouterr()
    do(train.main, "--method", "colora", "--device", "cpu")
    assert "kept" not in capsys.readouterr().out
    after = fingerprints()
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
    do(summarise.main)

    # New scans: predictions of both seeds, and scores on labelled ones.
    new = write_scans(Path("new"), 500, patients=3, seed=1)
    use = ("--method", "colora", "--device", "cpu")
    do(predict.main, *use, new, "--out", "predictions.csv")
    predicted = pd.read_csv("predictions.csv")
    assert list(predicted) == ["file", "predicted", *(f"p_{name}" for name in CLASSES), "spread"]
    assert len(predicted) == 18
    do(evaluate.main, *use, "--folder", new, "--out", "evaluation.csv")
    scores = pd.read_csv("evaluation.csv").set_index("network")
    truth = predicted["file"].map(lambda file: Path(file).parent.name)
    assert scores.loc["ensemble", "accuracy"] == pytest.approx((predicted["predicted"] == truth).mean(), abs=1e-6)
    assert scores.loc["ensemble", "patients"] == 9

    # One network, three ways: predicted here, as a program of plain torch, and as the adapter on its backbone.
    do(predict.main, *use, "--seed", 0, new, "--out", "one.csv")
    expected = torch.tensor(pd.read_csv("one.csv")[[f"p_{name}" for name in CLASSES]].to_numpy(), dtype=torch.float32)
    do(export.main, "--method", "colora", "--seed", 0, "--format", "torch", "--out", "colora.pt2")
    cut = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BICUBIC, box=(4, 0, 44, 40)))
           for file in predicted["file"]]  # fmt: skip
    images = torch.from_numpy(np.stack(cut)).float().div(255)[:, None].expand(-1, 3, -1, -1)
    program = torch.export.load("colora.pt2").module()
    torch.testing.assert_close(program(images), expected, atol=1e-5, rtol=0)
    seed_everything(0, 0)  # the starting weights of this profile are random
    settings = {"family": "head_only", "backbone": "smallcnn", "weights": "random"}
    plain = baselines.build("plain", settings, num_classes=3, image_size=32)
    colora.load_adapter(plain, "models/clinic/colora/0")
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(images).softmax(1), expected, atol=1e-5, rtol=0)
