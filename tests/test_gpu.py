"""What must hold on a GPU before its results count; skipped without one."""

import copy
import dataclasses
import warnings

import pytest
import torch

import colora
from pipelines.data.images import Features, open_prepared
from pipelines.profile import Params, Train
from pipelines.training import loop, parallel, runner, step
from pipelines.training.loaders import batches_of, precompute_frozen_features
from tests import conftest
from tests.conftest import FAMILIES, tiny_params

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def fit(method, **train):
    content = tiny_params(method={method: FAMILIES[method]})
    params = Params(**{**content, "train": {**content["train"], **train}})
    settings = params.settings(method)
    device, data, _, model = runner.set_up(params, method, 0, settings)
    curves = conftest.fit(model, data, settings["train"], device=device).curves
    return [{k: v for k, v in row.items() if k != "epoch_s"} for row in curves]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", FAMILIES)
def test_the_same_seed_gives_the_same_numbers(prepared, method, precision):
    assert fit(method, precision=precision) == fit(method, precision=precision)


def test_images_that_fit_live_on_the_gpu(prepared):
    assert open_prepared(prepared, 0, torch.device("cuda")).images.is_cuda


@pytest.mark.parametrize("home", ["cuda", "cpu"], ids=["on the GPU", "streamed"])
@pytest.mark.parametrize("augment", ["none", "authors", "flip", "standard", "features"])
def test_the_host_waits_for_nothing_within_an_epoch(prepared, augment, home):
    """Twice the steps, no more waiting: what waits is the reading of the sums at the end.

    "features": unaugmented, and the frozen layers in front computed once before.
    """
    params = Params(**tiny_params())
    settings = params.settings("head-only")
    device, data, _, model = runner.set_up(params, "head-only", 0, settings)
    recipe = Train.model_validate(settings["train"])
    data = dataclasses.replace(data, images=data.images.to(home), labels=data.labels.to(home))
    replica = parallel.Replica(model, device, micro_batch=None, compile=False)
    optimizer = step.make_optimizer(model, recipe, device)

    def waits(batch_size):
        kind = "none" if augment == "features" else augment
        own = recipe.model_copy(update={"batch_size": batch_size, "augment": kind})
        batches = batches_of(data, "train", own, device, training=True)
        if augment == "features":
            batches = precompute_frozen_features(model, batches, own, device)
            assert isinstance(batches, Features)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loop.one_epoch(
                    replica,
                    batches.shuffled(step.seed_everything(0)),
                    optimizer,
                    None,
                    own,
                    device,
                    step.Loss(own),
                    batches.options,
                )
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return len([w for w in seen if "synchronizing" in str(w.message)])

    waits(16)  # the first steps choose kernels and make the optimizer's state
    assert waits(8) == waits(16) > 0


@pytest.mark.parametrize("method", FAMILIES)
def test_gpu_and_cpu_start_alike(prepared, method, monkeypatch):
    """In float32 on both, and with small steps: what Adam makes of rounding grows with the rate."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_gpu = fit(method, epochs=1, lr=1e-5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = fit(method, epochs=1, lr=1e-5)
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
