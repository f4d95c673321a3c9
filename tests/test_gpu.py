"""What must hold on a GPU before its results count; skipped without one."""

import copy

import pytest
import torch

import colora
from pipelines import loop
from pipelines.images import open_prepared
from pipelines.params import Params
from tests.conftest import FAMILIES, tiny_params

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def fit(arm, **train):
    content = tiny_params(arm={arm: FAMILIES[arm]})
    params = Params(**{**content, "train": {**content["train"], **train}})
    settings = params.settings(arm)
    device, data, model = loop.set_up(params, arm, 0, settings)
    curves = loop.fit(model, data, settings["train"], seed=0, device=device).curves
    return [{k: v for k, v in row.items() if k != "epoch_s"} for row in curves]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arm", FAMILIES)
def test_the_same_seed_gives_the_same_numbers(prepared, arm, precision):
    assert fit(arm, precision=precision) == fit(arm, precision=precision)


def test_images_that_fit_live_on_the_gpu(prepared):
    assert open_prepared(prepared, 0, torch.device("cuda")).images.is_cuda


@pytest.mark.parametrize("arm", FAMILIES)
def test_gpu_and_cpu_start_alike(prepared, arm, monkeypatch):
    on_gpu = fit(arm, epochs=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = fit(arm, epochs=1)
    assert on_gpu[0]["train_loss"] == pytest.approx(on_cpu[0]["train_loss"], rel=1e-2)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_merge_is_exact_against_the_two_branches(dtype, tolerance):
    torch.backends.cudnn.allow_tf32 = False
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Conv2d(8, 12, 3, padding=1)).to("cuda", dtype)
    colora.inject(model, colora.ColoraConfig(target_modules=["1"]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(4, 8, 16, 16, device="cuda", dtype=dtype)
    expected = model[1].two_branch(x)
    merged = copy.deepcopy(model)
    colora.merge(merged)
    assert (merged(x) - expected).norm() <= tolerance * expected.norm()
