"""peft's tuners, SSF, norm tuning and Conv-Adapter: where they sit, how much trains, and what they compute."""

import copy

import pytest
import torch
from torch import nn

import baselines
from baselines.conv_adapter import Paralleled
from baselines.ssf import Scaled
from tests.conftest import bright_quadrants

RANKED = {name: {"family": "peft", "tuner": name, "rank": 4} for name in ("lora", "dora", "loha", "lokr", "hra")}
CNN = {
    **RANKED,
    "ia3": {"family": "peft", "tuner": "ia3"},
    "ssf": {"family": "ssf"},
    "norm_tuning": {"family": "norm_tuning"},
    "conv_adapter": {"family": "conv_adapter"},
}
VIT = {**{name: CNN[name] for name in CNN if name != "conv_adapter"}, "oft": {**RANKED["lora"], "tuner": "oft"}}


def build(section, backbone="smallcnn", image_size=32, **more):
    torch.manual_seed(0)
    settings = {"backbone": backbone, "weights": "random", **section, **more}
    return baselines.build("a-method", settings, num_classes=4, image_size=image_size)


def images(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def trained(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def beside_the_head(model):
    return sum(n for name, n in trained(model).items() if not name.startswith("head."))


# VGG16's 3x3 convolutions of blocks 2-5, as (in, out), and outputs of block 1, which has no normalisation either.
VGG = [(64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), *[(512, 512)] * 5]


@pytest.mark.parametrize(
    "section, expected",
    [
        (CNN["lora"], sum(4 * (9 * i + o) for i, o in VGG)),
        (CNN["dora"], sum(4 * (9 * i + o) + o for i, o in VGG)),  # and each filter's length
        (CNN["loha"], sum(2 * 4 * (9 * i + o) for i, o in VGG)),
        (CNN["hra"], sum(4 * 9 * i for i, o in VGG)),
        (CNN["ia3"], sum(o for _, o in VGG)),
        (CNN["ssf"], 2 * (64 + 64 + sum(o for _, o in VGG))),
        (CNN["conv_adapter"], sum(9 * i + i // 4 * o + o for i, o in VGG)),
        ({**CNN["conv_adapter"], "reduction": 8, "blocks": [5, 5]}, 3 * (9 * 512 + 64 * 512 + 512)),
    ],
    ids=lambda value: value.get("tuner", value["family"]) if isinstance(value, dict) else "",
)
def test_trained_parameters_of_vgg16_by_hand(section, expected):
    with torch.device("meta"):
        model = build(section, "vgg16")
        head = {n for n, _ in model.head.named_parameters(prefix="head")}
    assert beside_the_head(model) == expected
    assert head <= set(trained(model))


@pytest.mark.parametrize("name", CNN)
def test_on_a_cnn_it_starts_at_the_pretrained_function_and_trains_what_it_says(name):
    # In blocks 2 and 3, strides and shortcuts among them: HRA reflects kernels of 4,608 numbers in block 5 for 20 s.
    starts_where_it_should({**CNN[name], "blocks": [2, 3]}, "resnet18", {}, 64)


@pytest.mark.parametrize("name", CNN)
def test_channels_last_as_the_loop_lays_it_out(name):
    model = build(CNN[name]).eval()
    expected = model(images())
    model.to(memory_format=torch.channels_last)
    found = model(images().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", VIT)
def test_on_a_vit_it_starts_at_the_pretrained_function_and_trains_what_it_says(name):
    starts_where_it_should(VIT[name], "smallvit", {"head": "linear"}, 32)


def starts_where_it_should(section, backbone, more, size):
    model, plain = (build(s, backbone, size, **more).eval() for s in (section, {"family": "head_only"}))
    plain.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(model(images(2, size)), plain(images(2, size)), rtol=1e-4, atol=1e-5)
    model(images(2, size)).square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(trained(model))
    assert beside_the_head(model) > 0


@pytest.mark.parametrize("name", CNN)
def test_it_learns_and_the_frozen_stay(name):
    """A bright or dark stripe in one of two rows; chance is 0.25. The random backbone's BatchNorm is updated."""
    pixels, labels = bright_quadrants(64)
    x = torch.from_numpy(pixels).float().div(255).unsqueeze(1).expand(-1, 3, -1, -1)
    y = torch.from_numpy(labels)
    model = build(CNN[name], batchnorm="updated").train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        logits = model(x)
        losses.append(nn.functional.cross_entropy(logits, y))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0] and (logits.argmax(1) == y).float().mean() > 0.8
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= set(trained(model)) and any(not n.startswith("head.") for n in moved)


@pytest.mark.parametrize("tuner", ["lora", "dora", "loha", "lokr"])
def test_alpha_over_rank_is_the_scale(tuner):
    """By default one."""
    scales = []
    for alpha in (None, 12):
        model = build({"family": "peft", "tuner": tuner, "rank": 4, **({"alpha": alpha} if alpha else {})})
        scales.append({m.scaling["default"] for m in model.modules() if hasattr(m, "scaling")})
    assert scales == [{1}, {3}]


@pytest.mark.parametrize(
    "module, shape, last",
    [
        (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 4, 4), False),
        (nn.Linear(3, 5), (2, 4, 3), True),
        (nn.BatchNorm2d(3), (2, 3, 4, 4), False),
        (nn.LayerNorm(3), (2, 4, 3), True),
    ],
)
def test_ssf_is_a_factor_and_a_shift_a_channel(module, shape, last):
    x = torch.randn(shape)
    channels = 5 if isinstance(module, (nn.Conv2d, nn.Linear)) else 3
    scaled = Scaled(copy.deepcopy(module), channels, last)
    nn.init.normal_(scaled.factor), nn.init.normal_(scaled.shift)
    y, found = module(x).detach(), scaled(x)
    for c in range(channels):
        at = (..., c) if last else (slice(None), c)
        torch.testing.assert_close(found[at], y[at] * scaled.factor[c] + scaled.shift[c])


def test_ssf_sits_behind_every_layer_of_every_library():
    """timm's ConvNeXt has norms over maps and over channels-last tensors, and linear layers on the latter."""
    model = build({"family": "ssf"}, "convnext_tiny", 64)
    kinds = {type(m.module).__name__ for m in model.modules() if isinstance(m, Scaled)}
    assert {"Conv2d", "Linear", "LayerNorm", "LayerNorm2d"} <= kinds
    for module in model.modules():
        if isinstance(module, Scaled):
            nn.init.constant_(module.factor, 0.5)
    assert model.eval()(images(1, 64)).isfinite().all()


def test_conv_adapter_by_hand():
    base = nn.Conv2d(8, 6, 3, stride=2, padding=1).double()
    found = Paralleled(copy.deepcopy(base), 4).double()
    nn.init.normal_(found.scale)
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    narrow = [
        nn.functional.conv2d(x[:, 4 * g : 4 * g + 4], found.depthwise.weight[g : g + 1], stride=2, padding=1)
        for g in range(2)
    ]
    wide = torch.einsum("og,nghw->nohw", found.pointwise.weight[:, :, 0, 0], torch.cat(narrow, 1).clamp_min(0))
    torch.testing.assert_close(found(x), base(x) + found.scale * wide)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny"])
def test_norm_tuning_trains_every_norm_and_nothing_else(backbone):
    model = build({"family": "norm_tuning"}, backbone, 64)
    norms = {
        f"{name}.{key}"
        for name, module in model.backbone.named_modules(prefix="backbone")
        if "Norm" in type(module).__name__ and hasattr(module, "weight")  # timm has a head that is named so
        for key in ("weight", "bias")
    }
    assert {name for name in trained(model) if not name.startswith("head.")} == norms


@pytest.mark.parametrize(
    "section, words",
    [
        ({"family": "norm_tuning", "backbone": "vgg16"}, r"blocks: \[1, 5\].*no BatchNorm.*VGG16.*resnet18"),
        ({"family": "conv_adapter", "blocks": [1, 5]}, "reduction: found 4, expected a divisor of the 3 input"),
        ({"family": "conv_adapter", "reduction": 0}, "reduction: found 0"),
        ({**CNN["lora"], "rank": 0}, "rank: found 0, expected at least 1 with tuner 'lora'"),
        ({"family": "peft", "tuner": "loha"}, "rank: found None, expected at least 1"),
        ({**CNN["ia3"], "rank": 4}, "rank: found 4, expected none with tuner 'ia3'"),
        ({**CNN["hra"], "alpha": 4}, "alpha: found 4.*expected none with tuner 'hra'"),
        ({**CNN["lora"], "tuner": "oft"}, "hold no linear layer for tuner 'oft'"),
        ({**VIT["oft"], "rank": 7, "backbone": "smallvit", "head": "linear"}, "rank: found 7, expected a divisor"),
        ({**CNN["lora"], "tuner": "lola"}, "tuner: found 'lola', expected"),
        ({**CNN["hra"], "backbone": "efficientnet_b0"}, r"peft's hra cannot take a layer of blocks \[2, 5\].*groups"),
    ],
)
def test_what_cannot_be_is_named(section, words):
    with pytest.raises(baselines.MethodError, match=f"a-method.*{words}"):
        build(section, section.get("backbone", "smallcnn"), 64)
