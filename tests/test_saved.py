"""Trained weights on disk: what is kept, that it predicts as the trained network did, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import baselines
import colora
from pipelines.data.prepared import open_prepared
from pipelines.files.errors import UserError
from pipelines.profile import Params, Train
from pipelines.training import loop, runner, saved
from pipelines.training.loaders import batches_of
from tests.conftest import FAMILIES, tiny_params

CPU = torch.device("cpu")


def trained(method, section, **changes):
    params = Params(**tiny_params(method={method: section}, **changes))
    assert runner.run_method(params, method, [0], "cpu") == 0
    return params, params.model_dir(method, 0)


def check_predictions(params, method, folder):
    recipe = Train.model_validate(params.settings(method)["train"])
    data = open_prepared(params.data_dir, 0, CPU)
    for merged in (True, False):
        model, card = saved.load(folder, params, CPU, merged=merged)
        seen = loop.evaluate(model, batches_of(data, "test", recipe, CPU), recipe, CPU)
        with np.load(params.run_dir(method, 0) / "predictions.npz") as stored:
            np.testing.assert_allclose(seen.probabilities, stored["probabilities"], atol=1e-5)
    return card


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_network_predicts_as_it_did_in_its_test(prepared, family):
    params, folder = trained(family, FAMILIES[family], seeds=[0])
    card = check_predictions(params, family, folder)
    assert card.classes == ["class0", "class1", "class2", "class3"] and card.image_size == 32


def test_an_adapter_holds_what_trained_and_all_holds_everything(prepared):
    params, folder = trained("bitfit", {"family": "bitfit"}, seeds=[0])
    whole, everything = trained("full", {"family": "full"}, seeds=[0])
    assert (saved.read_card(folder).keep, saved.read_card(everything).keep) == ("adapter", "all")
    sizes = [(place / saved.WEIGHTS).stat().st_size for place in (folder, everything)]
    assert sizes[0] < sizes[1] / 2
    _, nothing = trained("full", {"family": "full", "train": {"keep": "none"}}, seeds=[0], profile="tiny")
    assert nothing == everything  # the finished run is kept as it was, its weights too
    shutil.rmtree("results")
    shutil.rmtree("models")
    _, nothing = trained("full", {"family": "full", "train": {"keep": "none"}}, seeds=[0])
    assert not nothing.exists()


def test_coloras_folder_loads_in_a_plain_script(prepared):
    params, folder = trained("colora", {"family": "colora", "blocks": [2, 5]}, seeds=[0])
    assert (folder / "adapter_config.json").is_file()
    # The starting weights of this profile are random, drawn by the seed.
    from pipelines.training import step

    step.seed_everything(0, 0)
    plain = baselines.build(
        "head", {"family": "head_only", "backbone": "smallcnn", "weights": "random"}, num_classes=4, image_size=32
    )
    colora.load_adapter(plain, folder)
    ours, _ = saved.load(folder, params, CPU)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(colora.merge_and_unload(plain.eval())(x), ours(x))


def test_merge_reset_is_kept_whole(prepared):
    section = {"family": "colora", "blocks": [2, 5], "merge_reset": True}
    params, folder = trained("colora", section, seeds=[0])
    assert (folder / saved.WEIGHTS).is_file() and saved.read_card(folder).keep == "all"
    check_predictions(params, "colora", folder)


def test_starting_weights_other_than_those_trained_from_are_refused(prepared, workdir):
    model = baselines.build(
        "full", {"family": "full", "backbone": "smallcnn", "weights": "random"}, num_classes=4, image_size=32
    )
    body = {
        k.removeprefix("backbone."): v.contiguous()
        for k, v in model.state_dict().items() if k.startswith("backbone.")
    }  # fmt: skip
    save_file(body, "w.safetensors")
    params, folder = trained(
        "bitfit", {"family": "bitfit"}, seeds=[0], model={"backbone": "smallcnn", "weights": "w.safetensors"}
    )
    saved.load(folder, params, CPU)
    save_file({k: v + 1 if v.is_floating_point() else v for k, v in body.items()}, "w.safetensors")
    with pytest.raises(UserError, match="was trained from w.safetensors .*; found w.safetensors"):
        saved.load(folder, params, CPU)
    Path("w.safetensors").unlink()
    with pytest.raises(UserError, match="no such file"):
        saved.load(folder, params, CPU)


def test_no_weights_and_damaged_weights_say_what_to_do(prepared):
    params, folder = trained("full", {"family": "full"}, seeds=[0])
    card = json.loads((folder / saved.CARD).read_text())
    (folder / saved.WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="weights.safetensors: not readable as safetensors.*train the run again"):
        saved.load(folder, params, CPU)
    (folder / saved.CARD).write_text(json.dumps({**card, "classes": 3}))
    with pytest.raises(UserError, match="model.json: classes"):
        saved.load(folder, params, CPU)
    with pytest.raises(UserError, match="no trained weights.*dvc pull"):
        saved.load(folder.parent / "7", params, CPU)


def test_weights_of_an_earlier_run_are_never_taken_for_this_ones(prepared, monkeypatch):
    params, folder = trained("full", {"family": "full"}, seeds=[0])
    record = params.run_dir("full", 0) / "record.json"
    content = json.loads(record.read_text())
    for change in ({"fingerprint": "another"}, {"status": "failed", "failure": "loss is nan"}):
        record.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match="weights of an earlier run than results/tiny/runs/full/0 tells of"):
            saved.load(folder, params, CPU)
    trained("full", {"family": "full", "train": {"lr": 0.004, "keep": "none"}}, seeds=[0])
    assert not folder.exists()
    trained("full", {"family": "full"}, seeds=[0])
    assert folder.exists()

    def diverges(*args, **kwargs):
        raise loop.Diverged("training loss is nan in epoch 1")

    monkeypatch.setattr(loop, "fit", diverges)
    changed = Params(**tiny_params(method={"full": {"family": "full", "train": {"lr": 0.003}}}, seeds=[0]))
    assert runner.run_method(changed, "full", [0], "cpu") == 1 and not folder.exists()
