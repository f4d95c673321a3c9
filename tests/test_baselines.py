"""Methods: what trains, what stays, and that each computes what its paper says."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

import baselines
from baselines.conv_lora import ConvLora
from pipelines.profile import Params
from pipelines.training import runner
from tests.conftest import FAMILIES, fit, tiny_params

METHODS = {
    **tiny_params()["method"],
    "conv-lora-kxk": {"family": "conv_lora", "rank": 4, "alpha": 8, "form": "kxk"},
    "colora-merge-reset": {"family": "colora", "merge_reset": True},
    "colora-pointwise": {"family": "colora", "components": "pointwise"},
    "colora-depthwise": {"family": "colora", "components": "depthwise"},
    "colora-pointwise-bias": {"family": "colora", "pointwise_bias": True},
}


def build(section, backbone="smallcnn", **options):
    settings = {"backbone": backbone, "weights": "random", **section}
    torch.manual_seed(0)
    return baselines.build("an-method", settings, num_classes=4, image_size=32, **options)


def images(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", ["smallcnn", "resnet18"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_moves_exactly_what_trains(method, backbone):
    model = build(METHODS[method], backbone).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # Adam's steps do not shrink with the gradient, which a deep random network in evaluation mode makes very small.
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    # Two steps: branches that start at zero pass no gradient to their first factor in the first one.
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images()), torch.arange(4)).backward()
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert moved <= trained
    # A ReLU or a dead unit may leave a small bias where it is, but not a whole weight tensor.
    assert {name for name in trained - moved if "weight" in name} == set()


@pytest.mark.parametrize("method", [name for name, section in METHODS.items() if section["family"] != "full"])
def test_every_update_is_zero_at_the_start(method):
    model = build(METHODS[method]).eval()
    plain = build({"family": "head_only"}).eval()
    plain.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(model(images()), plain(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy, moves", [("frozen", False), ("updated", True)])
@pytest.mark.parametrize("method", [name for name, section in METHODS.items() if section["family"] != "full"])
def test_one_batchnorm_policy_for_every_method_that_freezes_the_body(method, policy, moves):
    model = build({**METHODS[method], "batchnorm": policy})
    before = copy.deepcopy(dict(model.named_buffers()))
    model.train()
    model(images())
    assert any(not torch.equal(b, before[name]) for name, b in model.named_buffers()) is moves


def test_full_fine_tuning_always_updates_batchnorm():
    model = build({"family": "full", "batchnorm": "frozen"}).train()
    before = copy.deepcopy(dict(model.named_buffers()))
    model(images())
    assert any(not torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_frozen_prefix_is_run_without_a_graph():
    model = build({"family": "colora", "blocks": [4, 5]}, "vgg16")
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out.requires_grad))
    model(images())
    assert not any(seen[name] for name in model.block_modules((1, 3)))
    assert all(seen[name] for name in model.block_modules((4, 5)))


@pytest.mark.parametrize("rank, alpha", [(4, 8), (16, 16)])
def test_kxk_conv_lora_is_pefts(rank, alpha):
    """A peft LoraConfig on the same convolutions gives the same function, scaling included."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1))
    ours = copy.deepcopy(base)
    theirs = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0", "2"]), base)
    for index in (0, 2):
        ours[index] = ConvLora(ours[index], rank, alpha, "kxk")
        nn.init.normal_(ours[index].up.weight)
        theirs[index].lora_A["default"].weight.data.copy_(ours[index].down.weight)
        theirs[index].lora_B["default"].weight.data.copy_(ours[index].up.weight)
    torch.testing.assert_close(ours(images()), theirs(images()))


def test_1x1_conv_lora_updates_the_kernels_centre_only():
    """In float64: the branch equals a dense convolution whose kernel is up @ down at the centre tap."""
    base = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    lora = ConvLora(base, 2, 4, "1x1").double()
    nn.init.normal_(lora.up.weight)
    kernel = base.weight.detach().clone()
    kernel[:, :, 1, 1] += 4 / 2 * (lora.up.weight[:, :, 0, 0] @ lora.down.weight[:, :, 0, 0])
    x = images().double()
    torch.testing.assert_close(lora(x), nn.functional.conv2d(x, kernel, stride=2, padding=1), rtol=0, atol=1e-12)


def test_1x1_conv_lora_refuses_a_convolution_it_cannot_follow():
    with pytest.raises(ValueError, match="keeps the image's size"):
        ConvLora(nn.Conv2d(3, 4, 3), 2, 2, "1x1")


def test_merge_reset_keeps_the_function_and_starts_the_branch_again():
    model = build({"family": "colora", "merge_reset": True}).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "depthwise" in name:
                p.normal_()
    before = model(images())
    model.epoch_end(model)
    torch.testing.assert_close(model(images()), before, rtol=1e-4, atol=1e-5)
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("depthwise"))


@pytest.mark.parametrize(
    "section, words",
    [
        ({"family": "colra"}, "no family 'colra'.*'colora'"),
        ({"family": "colora", "block": [1, 2]}, "no option 'block'.*'blocks'"),
        ({"family": "colora", "blocks": [0, 5]}, r"blocks: found \[0, 5\].*1 <= first"),
        ({"family": "colora", "blocks": [5, 2]}, r"blocks: found \[5, 2\]"),
        ({"family": "conv_lora", "rank": 0, "alpha": 1}, "rank: found 0"),
        ({"family": "conv_lora", "rank": 1, "alpha": 1, "form": "3x3"}, "form: found '3x3'"),
        ({"family": "adapters", "reduction": 1000}, "reduction: found 1000, expected 1 to"),
    ],
)
def test_a_wrong_section_is_named_with_the_method(section, words):
    with pytest.raises(baselines.MethodError, match=f"an-method.*{words}"):
        build(section)


def test_every_family_has_a_small_method_here():
    assert {section["family"] for section in FAMILIES.values()} == set(baselines.families())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_through_the_pipelines_own_loop(prepared, name):
    """Four classes, chance 0.25. Frozen bodies are random here; BatchNorm scales their features so heads can learn.

    LoRA on a frozen random ViT learns the stripe's shade but not its row: half the classes' information, 0.59.
    """
    frozen = FAMILIES[name]["family"] not in ("full", "lora", "medmnist", "medkan", "medmamba", "vim")
    content = tiny_params(method={name: {**FAMILIES[name], **({"batchnorm": "updated"} if frozen else {})}})
    epochs = {"vit": 14, "lora": 14, "medmamba": 14, "vim": 14, "medmnist": 4}.get(name, 8)
    recipe = {**content["train"], "epochs": epochs, "lr": 3e-3, "schedule": "one-cycle"}
    params = Params(**{**content, "train": recipe})
    settings = params.settings(name)
    _, data, _, model = runner.set_up(params, name, 0, settings, "cpu")
    curves = fit(model, data, settings["train"]).curves
    assert curves[-1]["train_loss"] < 0.8 * curves[0]["train_loss"]
    assert curves[-1]["train_acc"] > (0.5 if name == "lora" else 0.6)
