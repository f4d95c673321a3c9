"""Methods on shares of the labels: which are one series, what they are compared with, and a run trained on a share."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.data import preparation
from pipelines.evidence import schemas, shares, stats
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
from pipelines.profile import Params, compose, load
from tests import fake_results as fake
from tests.conftest import bright_quadrants

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _work_in(workdir):
    return workdir


def rows(params, name):
    with open(params.results_dir / name, newline="") as file:
        return list(csv.DictReader(file))


def accuracies(params, method):
    found = []
    for seed in params.seeds:
        with np.load(params.run_dir(method, seed) / "predictions.npz") as archive:
            found.append((archive["probabilities"].argmax(1) == archive["labels"]).mean())
    return np.array(found)


def written(skip=(), **options):
    params, like = fake.label_params(("full", "head-only", "colora-blocks2-5"), range(3), (0.1, 0.5, 1), **options)
    fake.write_profile(params, skip, folds=True, like=like, n_test=80)
    fake.write_label_card(params)
    return params


def test_every_series_has_its_shares_with_patients_images_and_what_it_loses():
    params = written()
    summary = summarise(params)
    found = rows(params, "labels.csv")
    assert [(row["series"], row["method"], float(row["share"])) for row in found] == [
        (series, series + name, share)
        for series in ("full", "head-only", "colora-blocks2-5")
        for name, share in (("-10", 0.1), ("-50", 0.5), ("", 1))
    ]
    assert [(float(row["patients"]), float(row["images"])) for row in found[:3]] == [(45, 60), (223, 300), (446, 600)]
    for row in found:
        own = summary[row["method"]]
        assert float(row["acc_mean"]) == own["acc_mean"] and float(row["auc_lo"]) == own["auc_lo"]
        loss = accuracies(params, row["method"]) - accuracies(params, row["series"])
        if row["method"] == row["series"]:
            assert row["difference"] == row["lo"] == row["hi"] == ""
        else:
            assert float(row["difference"]) == pytest.approx(loss.mean(), abs=1e-6)
            assert float(row["lo"]) < loss.mean() < float(row["hi"])


def test_the_declared_contrasts_are_made_at_every_share_as_families_of_their_own():
    params = written()
    summarise(params)
    found = schemas.read(params.results_dir, "contrasts").query("metric == 'accuracy' and runs > 0")
    assert list(zip(found.share, found.method, found.against)) == [
        (share, f"colora-blocks2-5{name}", f"{against}{name}")
        for share, name in ((1, ""), (0.5, "-50"), (0.1, "-10"))
        for against in ("full", "head-only")
    ]
    for _, family in found.groupby("share"):
        assert stats.holm(family.p)[0] == pytest.approx(family.p_holm, rel=1e-4)
    assert {row["reference"] for row in rows(params, "pairs.csv") if row["method"] == "full-10"} == {"head-only-10"}


def test_where_all_methods_have_one_share_there_is_nothing_to_tell():
    params = fake.params(["full", "head-only"])
    fake.write_profile(params)
    summarise(params)
    assert rows(params, "labels.csv") == []
    settings = {method: shares.settings_of(params, method) for method in params.method}
    assert shares.names_by_share(settings) == {1.0: {"full": "full", "head-only": "head-only"}}


def test_a_hole_keeps_its_place_and_patients_may_be_unknown():
    params = written(skip=[("full", 0), ("full", 1), ("full", 2), ("head-only-10", 1)], allow_missing=True)
    (params.results_dir / "data" / "card.json").unlink()
    summarise(params)
    found = {row["method"]: row for row in rows(params, "labels.csv")}
    assert {row["patients"] for row in found.values()} == {""}
    assert (found["full"]["series"], found["full"]["images"], found["full"]["difference"]) == ("full", "", "")
    assert found["full-50"]["difference"] == "" and found["head-only-10"]["runs"] == "2"
    loss = (accuracies(params, "full-10") - accuracies(params, "full-50")).mean()  # the largest share that was run
    assert float(found["full-10"]["difference"]) == pytest.approx(loss, abs=1e-6)
    kept = [0, 2]
    loss = accuracies_of(params, "head-only-10", kept) - accuracies_of(params, "head-only", kept)
    assert float(found["head-only-10"]["difference"]) == pytest.approx(loss.mean(), abs=1e-6)


def accuracies_of(params, method, seeds):
    return accuracies(params.model_copy(update={"seeds": seeds}), method)


def test_a_card_without_the_share_is_named():
    params = written()
    path = params.results_dir / "data" / "card.json"
    card = json.loads(path.read_text())
    del card["seeds"]["2"]["patients"]["train@0.5"]
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"card\.json: no number of patients in split 'train@0\.5' of seed 2"):
        summarise(params)


def settings(share=1.0, lr=1e-3, epochs=8, batch_size=32, **options):
    return {
        "family": "colora",
        **options,
        "train": {"share": share, "lr": lr, "epochs": epochs, "batch_size": batch_size},
    }


def test_a_series_is_what_differs_in_share_epochs_and_rate_alone():
    found = shares.series_of(
        {
            # Names tell nothing: one ends in digits of its own, one is spelt as if it were the other's.
            "blocks2-5": settings(blocks=[2, 5]),
            "blocks2-5-10": settings(0.1, 3e-4, 25, blocks=[2, 5]),
            "blocks2-5-50": settings(0.5, blocks=[3, 5]),
            "large": settings(0.1, batch_size=64, blocks=[2, 5]),
            "half": settings(0.5, epochs=11, blocks=[2, 5]),
        }
    )
    assert found == {
        "blocks2-5": {0.1: "blocks2-5-10", 0.5: "half", 1.0: "blocks2-5"},
        "blocks2-5-50": {0.5: "blocks2-5-50"},
        "large": {0.1: "large"},
    }


def test_two_methods_that_would_be_one_series_on_one_share_are_refused():
    with pytest.raises(UserError, match="methods a and b have one share and the same settings, epochs and lr aside"):
        shares.series_of({"a": settings(0.5), "b": settings(0.5, lr=1e-2), "c": settings()})


def test_the_labels_profile_has_every_series_on_every_share(workdir):
    params = compose("oct1k-labels", ROOT / "conf")
    resolved = {method: params.settings(method) for method in params.method}
    asked = [*params.data.shares, 1]
    for methods in shares.series_of(resolved).values():
        train = [resolved[method]["train"] for method in methods.values()]
        assert [own["share"] for own in train] == asked
        assert [own["epochs"] for own in train] == [round(8 / share**0.5) for share in asked]
        assert len({own["lr"] for own in train}) == 1


def test_a_run_trains_on_its_share_of_a_folder(workdir):
    """From images to a record: prepare, then one run on half of the patients and one on all of them."""
    from pipelines import train

    images, labels = bright_quadrants(96)
    for index, (image, label) in enumerate(zip(images, labels)):
        folder = workdir / "scans" / f"c{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"c{label}-{index // 2}-{index}.png")
    content = {
        "profile": "tiny",
        "seeds": [1],
        "data": {
            "source": "folder", "image_size": 32, "folder": {"path": "scans", "folds": 2, "val_share": 0.25},
            "shares": [0.5],
        },
        "model": {"backbone": "smallcnn", "weights": "random"},
        "train": {"epochs": 1, "batch_size": 16, "lr": 1e-3, "save_entropies": True},
        "method": {"half": {"family": "head_only", "train": {"share": 0.5}}, "all": {"family": "head_only"}},
    }  # fmt: skip
    Path("params.yaml").write_text(yaml.safe_dump(content))
    manifest = preparation.prepare(load("params.yaml"))
    with np.load("data/tiny/splits.npz") as splits:
        half, whole, tested_images = splits["1/train@0.5"], splits["1/train"], len(splits["1/test"])
    prints = []
    for method, indices in (("half", half), ("all", whole)):
        assert train.main(["--method", method, "--device", "cpu"]) == 0
        folder = Path("results/tiny/runs") / method / "1"
        record = json.loads((folder / "record.json").read_text())
        assert record["data"]["train"] == len(indices)
        with np.load(folder / "entropies.npz") as seen:
            np.testing.assert_array_equal(np.sort(seen["indices"]), indices)
        with np.load(folder / "predictions.npz") as tested:
            assert len(tested["indices"]) == tested_images
        prints.append(record["fingerprint"])
    assert prints[0] != prints[1]
    summarise(load("params.yaml"))
    found = {row["method"]: row for row in rows(Params(**content), "labels.csv")}
    patients = np.array(manifest.patient_of_image)
    assert float(found["half"]["patients"]) == len(set(patients[half])) < float(found["all"]["patients"])
    assert (found["half"]["series"], found["half"]["images"]) == ("all", str(len(half)))
