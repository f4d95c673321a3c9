"""LoRA on a ViT: where it sits, what trains, and that it computes what its paper says."""

import pytest
import torch
from torch import nn

import baselines

VIT = {"backbone": "smallvit", "weights": "random", "head": "linear"}


def build(**section):
    torch.manual_seed(0)
    settings = {**VIT, "family": "lora", "rank": 4, "alpha": 8, **section}
    return baselines.build("vit-lora", settings, num_classes=4, image_size=32)


def images(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "section, expected",
    [
        # rank * (inputs + outputs) of every adapted matrix, four layers of width 96
        ({}, 4 * 4 * ((96 + 288) + (96 + 96))),
        ({"layers": ["attention", "mlp"]}, 4 * 4 * ((96 + 288) + (96 + 96) + (96 + 384) + (384 + 96))),
        ({"layers": ["mlp"], "blocks": [4, 5]}, 2 * 4 * ((96 + 384) + (384 + 96))),
        ({"rank": 2}, 4 * 2 * ((96 + 288) + (96 + 96))),
    ],
)
def test_trained_parameters_are_the_two_factors_and_the_head(section, expected):
    model = build(**section)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    assert sum(n for name, n in trained.items() if "lora_" in name) == expected
    assert sum(n for name, n in trained.items() if name.startswith("head.")) == 96 * 4 + 4


def test_it_starts_at_the_pretrained_function():
    model = build().eval()
    plain = baselines.build("a", {**VIT, "family": "head_only"}, num_classes=4, image_size=32).eval()
    plain.load_state_dict({k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if "lora_" not in k})
    torch.testing.assert_close(model(images()), plain(images()))


def test_each_adapted_matrix_gains_alpha_over_rank_times_the_product_of_its_factors():
    model = build(layers=["attention", "mlp"]).eval()
    plain = baselines.build("a", {**VIT, "family": "head_only"}, num_classes=4, image_size=32).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    state = model.state_dict()
    merged = {k.replace(".base_layer", ""): v.clone() for k, v in state.items() if "lora_" not in k}
    adapted = [k.removesuffix(".lora_A.default.weight") for k in state if k.endswith("lora_A.default.weight")]
    assert len(adapted) == 4 * 4
    for name in adapted:
        up, down = state[f"{name}.lora_B.default.weight"], state[f"{name}.lora_A.default.weight"]
        merged[f"{name}.weight"] += 8 / 4 * (up @ down)
    plain.load_state_dict(merged)
    torch.testing.assert_close(model(images()), plain(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "section, words",
    [
        ({"layers": ["attn"]}, r"layers: found \['attn'\], expected one or both of attention, mlp"),
        ({"layers": []}, r"layers: found \[\]"),
        ({"rank": 0}, "rank: found 0"),
        ({"backbone": "smallcnn"}, "hold no attention; LoRA here is for ViTs"),
        ({"blocks": [1, 1]}, "hold no attention"),
    ],
)
def test_a_wrong_option_is_named(section, words):
    with pytest.raises(baselines.MethodError, match=f"'vit-lora': .*{words}"):
        build(**section)
