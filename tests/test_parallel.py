"""One process against two (gloo, real processes), whole batches against pieces, eager against compiled."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import colora
from baselines.backbones import classifier
from pipelines.data.images import open_prepared
from pipelines.profile import Params
from pipelines.training import loop, parallel, runner
from tests import conftest
from tests.conftest import FAMILIES, bright_quadrants, tiny_params, write_prepared
from tests.test_loop import CPU, network, numbers, recipe

ROOT = Path(__file__).parents[1]


def fitted(folder, section=None, **changes):
    model = network(section)
    fit = conftest.fit(model, open_prepared(folder, 0, CPU), recipe(epochs=2, **changes))
    return model, fit


@pytest.mark.parametrize("family", ["colora", "bitfit", "conv_lora"])
@pytest.mark.parametrize("pieces", [5, 16, 100])
def test_pieces_of_a_batch_give_the_whole_batchs_numbers(prepared, family, pieces):
    model, whole = fitted(prepared, FAMILIES[family])
    in_pieces, split = fitted(prepared, FAMILIES[family], micro_batch=pieces)
    for a, b in zip(whole.curves, split.curves):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
    for (name, a), b in zip(model.named_parameters(), in_pieces.parameters()):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_the_gradient_of_pieces_is_that_of_the_mean_loss_of_the_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
    images, labels = torch.randn(7, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    replica = parallel.Replica(model, CPU, micro_batch=3, compile=False)
    done = replica.accumulate(
        images, labels, lambda net, x, y: (nn.functional.cross_entropy(logits := net(x), y), logits)
    )
    p = model(images).softmax(1).detach()
    expected = (p - nn.functional.one_hot(labels, 4)).T @ images.flatten(1) / 7  # the closed form of softmax regression
    torch.testing.assert_close(model[1].weight.grad, expected, rtol=1e-12, atol=1e-14)
    assert [len(own) for _, _, own in done] == [3, 3, 1]


def test_moving_batchnorm_statistics_and_pieces_do_not_go_together(prepared):
    with pytest.raises(ValueError, match="train.micro_batch is 4, but this method updates BatchNorm statistics"):
        fitted(prepared, {"family": "full"}, micro_batch=4)
    fitted(prepared, {"family": "head_only"}, micro_batch=4)  # frozen statistics: fine


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports
def test_the_compiled_network_gives_the_same_numbers(prepared, monkeypatch):
    """Traced and differentiated as torch.compile does it; C++ is made of it below, where there is less of it."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: original(network, backend="aot_eager"))
    _, eager = fitted(prepared, FAMILIES["colora"])
    _, compiled = fitted(prepared, FAMILIES["colora"], compile=True)
    for a, b in zip(eager.curves, compiled.curves):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)
        assert abs(a["val_acc"] - b["val_acc"]) <= 1 / 32
    assert compiled.best_state.keys() == eager.best_state.keys()


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiled_gradient_is_the_same():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = colora.inject(plain).to(memory_format=torch.channels_last)
    for parameter in colora_parameters(model):
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    gradients = []
    for compiled in (False, True):
        model.zero_grad()
        replica = parallel.Replica(model, CPU, micro_batch=None, compile=compiled)
        replica.accumulate(
            images, torch.arange(4), lambda net, x, y: (nn.functional.cross_entropy(logits := net(x), y), logits)
        )
        gradients.append([p.grad.clone() for p in colora_parameters(model)])
    assert len(gradients[0]) == 3  # pointwise, depthwise, and its bias
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def colora_parameters(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_two_processes_give_one_processs_metrics(prepared, workdir):
    """A batch of 16 leaves 13 rows of 93 training images for the last one: uneven rows, of which one process has 6."""
    shutil.rmtree(prepared)
    images, labels = bright_quadrants(160)
    splits = {"train": np.arange(93), "val": np.arange(96, 128), "test": np.arange(128, 160)}
    write_prepared(prepared, images, labels, splits)
    content = tiny_params(seeds=[0], method={"colora": {"family": "colora", "merge_reset": True}})
    content["train"] |= {"augment": "standard", "schedule": "one-cycle"}
    (workdir / "params.yaml").write_text(yaml.safe_dump(content))
    params = Params(**content)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pipelines.train",
         "--method", "colora", "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("colora seed 0: accuracy") == 1
    folder = params.run_dir("colora", 0)
    together, predictions = json.loads((folder / "record.json").read_text()), np.load(folder / "predictions.npz")
    assert together["environment"]["processes"] == 2
    together_p = predictions["probabilities"]
    shutil.rmtree(folder)
    assert runner.run_method(params, "colora", [0], "cpu") == 0
    alone = json.loads((folder / "record.json").read_text())
    assert alone["fingerprint"] == together["fingerprint"]
    np.testing.assert_allclose(np.load(folder / "predictions.npz")["probabilities"], together_p, atol=2e-3)
    for name in ("acc", "auc", "loss"):
        assert together["metrics"]["test"][name] == pytest.approx(alone["metrics"]["test"][name], abs=2e-3)


def test_only_the_first_process_writes(prepared, workdir, monkeypatch):
    before = sorted(workdir.rglob("*"))
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    monkeypatch.setenv("RANK", "1")  # as torchrun does
    fit, trained, seen = loop.fit, [], []

    def fit_and_look(*args, **options):
        found = fit(*args, **options)
        trained.append(found)
        seen.extend(path for path in workdir.rglob("*") if path.is_file() and path not in before)
        return found

    monkeypatch.setattr(loop, "fit", fit_and_look)
    runner.run_method(Params(**tiny_params()), "full", [0], "cpu")
    assert trained and not seen, "the live curves, of which each process had written its own rows"


def test_two_processes_on_a_cpu_refuse_moving_batchnorm_statistics(prepared, monkeypatch):
    params = Params(**tiny_params(seeds=[0]))
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(ValueError, match="2 processes on a CPU, but this method updates BatchNorm"):
        runner.run_method(params, "full", [0], "cpu")
    assert not params.run_dir("full", 0).exists()


def test_curves_are_untouched_by_the_options_that_are_off(prepared):
    assert numbers(fitted(prepared)[1]) == numbers(fitted(prepared, micro_batch=None, compile=False, share=1.0)[1])


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_synchronised_statistics_leave_the_network_as_it_was(backbone):
    """timm's BatchNorms hold an activation; SyncBatchNorm itself runs on GPUs only, but for evaluation."""
    network = classifier(backbone=backbone, weights="random", num_classes=4, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    expected = network.eval()(images)
    parameters = list(map(id, network.parameters()))
    parallel.synchronise_statistics(network)
    assert torch.equal(network(images), expected)
    assert list(map(id, network.parameters())) == parameters
    moving = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert moving and all(isinstance(m, nn.SyncBatchNorm) for m in moving)
