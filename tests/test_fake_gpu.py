"""What a GPU would refuse or wait for, found without one: a step of every method of profile `paper`, and of one of each
family and backbone all that a run does.

The meta device stands for the GPU: it knows shapes and types and computes nothing. A dispatch mode raises where a
tensor on the CPU meets one there, as CUDA does, and counts what the host would wait for. Mixed precision is tried on
fake CPU tensors, since autocast knows no meta device.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import baselines
from colora.conv import ColoraConv2d
from pipelines.costs.benches import Bench
from pipelines.costs.contenders import Contender
from pipelines.data import augmentation, images
from pipelines.data.images import Features
from pipelines.data.prepared import Prepared
from pipelines.prediction import ensemble
from pipelines.profile import Train, compose
from pipelines.training import loop, parallel, probe, step
from pipelines.training.corruptions import KINDS
from pipelines.training.loaders import batches_of, make_loaders

PARAMS = compose("paper")
ONE_EACH = {(own["family"], own["backbone"]): name for name in PARAMS.method for own in [PARAMS.settings(name)]}
SIZE, CLASSES = 64, 4
GPU = torch.device("meta")
aten = torch.ops.aten
# Copies between devices, and what on CUDA takes indices from the CPU.
CROSSING = (aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten._index_put_impl_)


class Mixed(AssertionError):
    """A tensor on the CPU met one on the device."""


class FakeGPU(TorchDispatchMode):
    """Raises `Mixed`; `waits` counts reads by the host, which find made-up values."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there operators come here before they are taken to pieces
            with self:
                pieces = function.decompose(*args, **kwargs)
            if pieces is not NotImplemented:
                return pieces
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            packet = function.overloadpacket
            if packet is aten._local_scalar_dense:
                self.waits += 1
                return 0.5 if args[0].is_floating_point() else 1
            if packet is aten._to_copy and torch.device(kwargs.get("device") or GPU).type == "cpu":
                self.waits += 1
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if packet not in CROSSING and any(tensor.device.type == "cpu" and tensor.dim() for tensor in tensors):
                found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device.type}" for tensor in tensors)
                raise Mixed(f"{function}: {found}")
        return function(*args, **kwargs)


@pytest.fixture
def without_driver(monkeypatch):
    """Pinned memory is asked of a driver, and autocast knows no meta device; neither changes a shape."""
    for module in (augmentation, images):
        monkeypatch.setattr(module, "moved", lambda tensor, device: tensor.to(device))
    for module in (loop, probe, ensemble):
        monkeypatch.setattr(module, "autocast", lambda recipe, device: nullcontext())
    monkeypatch.setattr(probe, "SEVERITIES", (3,))  # all take the same operators
    monkeypatch.setattr(probe, "KINDS", KINDS[:1])  # the network meets the images when they are corrupted
    monkeypatch.setattr(torch, "autocast", lambda kind, **options: nullcontext())  # the probe's own


class Undrawn(TorchDispatchMode):
    """Zeros in place of random initial values, which take longer and are never seen."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (aten.normal_, aten.uniform_):
            return args[0].zero_()
        return function(*args, **(kwargs or {}))


def network(method):
    """As a run has it: built on the CPU, then moved."""
    settings = {**PARAMS.settings(method), "weights": "random"}
    with Undrawn():
        model = baselines.build(method, settings, num_classes=CLASSES, image_size=SIZE)
    return model.to(GPU, memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def colora():
    return network("colora-blocks2-5")


def prepared(count=8, home=GPU):
    pixels = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8, device=home)
    labels = torch.zeros(count, dtype=torch.int64, device=home)
    splits = {name: np.arange(count) for name in ("train", "val", "test")}
    return Prepared(pixels, labels, splits, [f"class{n}" for n in range(CLASSES)])


def epoch(model, recipe, data):
    """One epoch as `loop.fit` has it; waits in it."""
    replica = parallel.Replica(model, GPU, micro_batch=None, compile=False)
    optimizer = step.make_optimizer(model, recipe, GPU)
    batches = batches_of(data, "train", recipe, GPU, training=True)
    with FakeGPU() as gpu:
        loop.one_epoch(
            replica, batches.shuffled(step.seed_everything(0)), optimizer, None, recipe, GPU, step.Loss(recipe),
            batches.options,
        )  # fmt: skip
    return gpu.waits


def predictions(model, recipe, batch):
    """As `pipelines.predict` asks one network."""
    card = SimpleNamespace(settings={"train": recipe.model_dump()})
    return ensemble.Ensemble([model.eval()], [card], GPU).probabilities(batch)


@pytest.mark.parametrize("method", ONE_EACH.values())
def test_training_evaluation_probe_and_prediction_stay_on_the_device(method, tmp_path, without_driver):
    model, data = network(method), prepared()
    recipe = Train.model_validate({**PARAMS.settings(method)["train"], "batch_size": 4, "eval_batch_size": 4})
    epoch(model, recipe, data)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and (p.grad.shape, p.grad.dtype) == (p.shape, p.dtype) for p in trained)
    with FakeGPU():
        seen = loop.evaluate(model, batches_of(data, "val", recipe, GPU), recipe, GPU)
        probe.run(model, data, recipe, GPU, tmp_path, images=4)
        probabilities = predictions(model, recipe, next(batches_of(data, "test", recipe, GPU).in_order())[0])
    assert seen.labels.shape == (8,) and seen.probabilities.shape == (8, CLASSES)
    assert seen.probabilities.dtype == np.float32
    with np.load(tmp_path / "corruptions.npz") as file:
        assert file["predicted"].shape == (1, 1, 4)
    with np.load(tmp_path / "gradcam.npz") as file:
        assert file["maps"].shape[0] == 4 and file["maps"].ndim == 3
    assert probabilities.shape == (1, 4, CLASSES) and probabilities.dtype == torch.float32


def test_every_corruption_stays_on_the_device(tmp_path, without_driver, monkeypatch):
    monkeypatch.setattr(probe, "KINDS", KINDS)
    with FakeGPU():
        probe.run(network("head-only"), prepared(), PARAMS.train, GPU, tmp_path, images=4)
    with np.load(tmp_path / "corruptions.npz") as file:
        assert file["predicted"].shape == (len(KINDS), 1, 4)


@pytest.mark.parametrize("home", [GPU, torch.device("cpu")], ids=["images on the GPU", "streamed"])
@pytest.mark.parametrize("augment", ["none", "authors", "flip", "standard"])
def test_the_host_waits_as_often_in_long_epochs_as_in_short_ones(augment, home, colora, without_driver):
    recipe = PARAMS.train.model_copy(update={"batch_size": 4, "augment": augment})
    waits = [epoch(colora, recipe, prepared(count, home)) for count in (4, 8, 24)]
    assert waits == [2, 2, 2], "loss and accuracy, once an epoch"


def test_a_wait_in_every_step_is_counted(without_driver):
    model, recipe = network("head-only"), PARAMS.train.model_copy(update={"batch_size": 4})
    model.register_forward_hook(lambda module, inputs, logits: logits.sum().item() and None)
    assert [epoch(model, recipe, prepared(count)) for count in (4, 8, 24)] == [3, 4, 8]


@pytest.mark.parametrize("method", ["head-only", "colora-block5", "colora-blocks2-5-merge-reset"])
def test_whole_runs_stay_on_the_device_with_frozen_features_and_merges(method, without_driver, monkeypatch):
    monkeypatch.setattr("colora.conv.digest", lambda kernel: f"{kernel.cpu().numel():064x}")  # of its values
    changes = {"epochs": 2, "batch_size": 4, "eval_batch_size": 4, "augment": "none"}
    model, recipe = network(method), Train.model_validate({**PARAMS.settings(method)["train"], **changes})
    waits, depth = [0], model.train().frozen_depth()
    with FakeGPU() as gpu:
        loaders = make_loaders(model, prepared(), recipe, GPU)
        assert [isinstance(own, Features) for own in (loaders.train, loaders.val)] == [depth > 0] * 2
        gpu.waits = 0
        done = loop.fit(model, loaders, recipe, seed=0, device=GPU, on_epoch=lambda row: waits.append(gpu.waits))
    assert depth > 0 or method == "colora-blocks2-5-merge-reset"
    # Sums of training, then labels, probabilities and loss; before the first reset every kernel and bias is read once.
    read = 2 * sum(isinstance(m, ColoraConv2d) for m in model.modules()) if "reset" in method else 0
    assert [waits[1], waits[2] - waits[1]] == [5 + read, 5] and len(done.curves) == 2
    assert {tensor.device.type for tensor in done.best_state.values()} == {"meta"}


@pytest.mark.parametrize("form", ["", "two-branch"])
def test_what_cost_measures_stays_on_the_device(form, without_driver):
    settings = {**PARAMS.settings("colora-blocks2-5"), "weights": "random"}
    settings["train"] = {**settings["train"], "batch_size": 4}
    with FakeGPU():
        bench = Bench(
            Contender("colora", settings, SIZE, role="reference" if form else "method", form=form),
            GPU, num_classes=CLASSES, block_s=0, inference_batch=8,
        )  # fmt: skip
        readings, (inference, training) = bench.round(), bench.flops()
        bench.peak_bytes(), bench.deployed()
    of_ours = set() if form else {"fed", "inference 1 merged", "inference 8 merged"}
    assert set(readings) == {"step", "inference 1", "inference 8"} | of_ours
    assert training > inference > 0


class Constant(nn.Module):
    """Adds a constant that does not move with the network, as no buffer holds it."""

    def __init__(self, model):
        super().__init__()
        self.model, self.constant = model, torch.ones(CLASSES)

    def forward(self, images):
        return self.model(images) + self.constant


def test_a_tensor_left_on_the_cpu_is_found_in_training_evaluation_and_prediction(without_driver):
    model, data = Constant(network("head-only")), prepared()
    batches = batches_of(data, "val", PARAMS.train, GPU)
    with pytest.raises(Mixed, match=r"aten.add.Tensor: \(8, 4\) on meta, \(4,\) on cpu"):
        epoch(model, PARAMS.train, data)
    with FakeGPU(), pytest.raises(Mixed, match="aten.add.Tensor"):
        loop.evaluate(model, batches, PARAMS.train, GPU)
    with FakeGPU(), pytest.raises(Mixed, match="aten.add.Tensor"):
        predictions(model, PARAMS.train, next(batches.in_order())[0])
    with FakeGPU(), pytest.raises(Mixed, match="convolution"):  # images that nobody moved
        loop.evaluate(model.model, batches_of(prepared(home="cpu"), "val", PARAMS.train, "cpu"), PARAMS.train, GPU)


def fake(model):
    """The network with fake tensors on the CPU as its own, in place; within a FakeTensorMode."""
    made = {}

    def of(tensor):
        if id(tensor) not in made:
            own = torch.empty(tensor.shape, dtype=tensor.dtype)
            made[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
        return made[id(tensor)]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: of(tensor) for name, tensor in own.items() if tensor is not None})
    return model


@pytest.mark.parametrize("method", PARAMS.method)
def test_a_step_in_bfloat16_keeps_weights_and_loss_in_float32(method):
    settings = {**PARAMS.settings(method), "weights": "random"}
    with torch.device("meta"):
        model = baselines.build(method, settings, num_classes=CLASSES, image_size=SIZE)
    recipe = Train.model_validate(settings["train"])
    assert recipe.precision == "bfloat16"
    with FakeTensorMode():
        model = fake(model).train()
        with step.autocast(recipe, torch.device("cpu")):
            logits = model(torch.empty(2, 3, SIZE, SIZE))
        loss = step.Loss(recipe)(logits.float(), torch.zeros(2, dtype=torch.int64))
        loss.backward()
        step.make_optimizer(model, recipe, torch.device("cpu")).step()
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert grads and all(grad is not None and grad.dtype == torch.float32 for grad in grads)
