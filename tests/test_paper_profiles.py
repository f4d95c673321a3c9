"""The profiles of the paper's tables: what each trains on, at which sizes, and each from an archive to its report."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import baselines
from pipelines import prepare, summarise, train
from pipelines.profile import compose
from report import pages
from report.__main__ import main as report
from report.claims.ledger import verdicts
from report.sections import beside_paper
from tests import published

# The methods of the paper's tables of other data sets.
TABLES = {
    **dict.fromkeys(["paper-retina", "paper-path", "paper-blood"], ["head-only", "colora-blocks2-5"]),
    "paper-cifar100": ["head-only", "adapters", "bitfit", "conv-lora-r8", "colora-blocks2-5", "colora-block5"],
}


@pytest.mark.parametrize("profile", TABLES)
def test_a_table_has_its_methods_by_the_papers_recipe(profile):
    params, paper = compose(profile), compose("paper")
    assert list(params.method) == TABLES[profile] and params.data.mode == "full"
    for method in params.method:
        assert params.settings(method)["train"] == {**paper.settings(method)["train"], "save_entropies": False}
        assert {**params.method[method], "train": {}} == {**paper.method[method], "train": {}}
    assert (params.model, params.seeds, params.tune) == (paper.model, paper.seeds, None)
    assert params.data.image_size == (32 if profile == "paper-cifar100" else 224)


@pytest.mark.parametrize("profile", TABLES)
def test_a_table_from_the_archive_to_the_claims(profile, tmp_path, monkeypatch):
    """On a few images of noise, with a small network: what comes out is whole, not good."""
    content = compose(profile).model_dump(mode="json")
    monkeypatch.chdir(tmp_path)
    content["data"][content["data"]["source"]]["cache"] = "cache"
    if profile == "paper-cifar100":
        published.cifar100(monkeypatch, Path("cache"), list("abcde"), (60, 10))
    else:
        content["data"]["image_size"] = 64
        published.medmnist(monkeypatch, Path("cache"), content["data"]["medmnist"]["dataset"], 64, each=(2, 1, 2))
    content["model"] = {"backbone": "smallcnn", "weights": "random"}
    content["seeds"] = [0, 1]
    content["train"] |= {"epochs": 1, "precision": "float32"}
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    assert prepare.main([]) == 0
    for method in TABLES[profile]:
        assert train.main(["--method", method, "--device", "cpu"]) == 0
    assert summarise.main([]) == 0
    results = pages.read(Path("results") / profile, None)
    assert list(results.methods.index) == TABLES[profile] and (results.methods.seeds == 2).all()
    record = json.loads(Path(f"results/{profile}/runs/head-only/1/record.json").read_text())
    assert record["settings"]["train"]["loss"] == "binary-cross-entropy"
    # The paper's own figures of this data set stand beside these, and the claim about all data sets names the others.
    dataset = profile.removeprefix("paper-") + "mnist" * (profile != "paper-cifar100")
    table = beside_paper.table(results).raw
    assert list(table.method) == TABLES[profile] and set(table.paper_dataset) == {dataset}
    verdict = next(own for own in verdicts(results) if own.id == "other-data")
    others = [name for name in ("retinamnist", "pathmnist", "bloodmnist", "cifar100") if name != dataset]
    assert verdict.verdict == "not tested" and f"a profile on each of {', '.join(others)}" in verdict.takes
    assert f"{dataset}: not run" not in verdict.evidence
    if profile == "paper-retina":
        assert report([]) == 0


@pytest.fixture(scope="module")
def paper():
    return compose("paper")


def built(params, method, size, **changes):
    """The logits' shape of a method for two images of a size, from shapes alone."""
    settings = {**params.settings(method), "weights": "random", **changes}
    with torch.device("meta"):
        model = baselines.build(method, settings, num_classes=9, image_size=size).eval()
        return tuple(model(torch.empty(2, 3, size, size)).shape)


@pytest.mark.parametrize("size", [64, 128])
def test_every_method_of_the_paper_takes_medmnists_sizes(paper, size):
    assert {method: built(paper, method, size) for method in paper.method} == dict.fromkeys(paper.method, (2, 9))


def test_at_28_px_a_method_says_why_not_or_enlarges_the_images(paper):
    """VGG16, ConvNeXt, MedMamba and MedKAN halve images five times, ViTs and Vim cut them into patches of 16. Where a
    backbone is adapted, `input_size` enlarges the images.
    """
    refused = set()
    for method in paper.method:
        try:
            assert built(paper, method, 28) == (2, 9)
        except ValueError as error:
            assert re.search("image_size: .*28.*(larger|multiple|at least)", str(error)), error
            refused.add(method)
            if method not in ("medmamba", "vim", "medkan"):
                assert built(paper, method, 28, input_size=32) == (2, 9)
    kinds = ("resnet50", "efficientnet", "medmnist")
    assert refused == {method for method in paper.method if not method.startswith(kinds)}
