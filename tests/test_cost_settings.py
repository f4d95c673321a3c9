"""Who the cost stage measures: references, growth, sections that ask too much."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from colora.conv import ColoraConv2d
from pipelines.costs import contenders, costing
from pipelines.profile import ParamsError
from tests.conftest import FAMILIES, tiny_params
from tests.test_cost import lineup, profile


def test_references_stand_on_the_network_and_at_the_places_of_the_colora_method():
    full, _, ours, two, lora = lineup(profile())
    assert [two.name, lora.name] == ["colora-blocks2-5-two-branch", "colora-blocks2-5-peft-lora-r8"]
    assert two.role == lora.role == "reference" and two.network == lora.network == full.network == ours.network
    torch.manual_seed(0)
    model = contenders.build(ours, 4).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    twin = contenders.build(two, 4).eval()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    calls = []
    for layer in twin.modules():
        if isinstance(layer, ColoraConv2d):
            layer.register_forward_hook(lambda m, i, out: calls.append((out - m.two_branch(*i)).abs().max().item()))
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-5)
    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, ColoraConv2d)}
    assert calls == [0.0] * len(adapted)  # bit for bit: the fused form rounds otherwise
    counterpart = contenders.build(lora, 4)
    with_lora = {name.split(".lora_A")[0] for name, _ in counterpart.named_parameters() if ".lora_A" in name}
    assert with_lora == set(adapted)
    low_rank = sum(8 * (m.in_channels * math.prod(m.kernel_size) + m.out_channels) for m in adapted.values())
    trained = sum(p.numel() for p in counterpart.parameters() if p.requires_grad)
    assert trained == low_rank + sum(p.numel() for p in counterpart.head.parameters())


def test_groups_that_do_not_fit_the_rank_are_left_out():
    methods = {"colora": {"family": "colora", "backbone": "convnext_tiny"}}
    lora = next(c for c in lineup(profile(methods)) if c.form == "peft")
    with torch.device("meta"), pytest.raises(contenders.LeftOut, match="peft: "):
        contenders.build(lora, 4)


def test_what_a_network_has_not_got_is_added_for_the_ratios():
    vit = {"family": "lora", "backbone": "smallvit", "head": "linear", "rank": 8, "alpha": 16}
    methods = {"colora-blocks2-5": {"family": "colora"}, "vit-lora": vit, "vim": FAMILIES["vim"]}
    found = lineup(profile(methods))
    assert [c.name for c in found[3:]] == [
        "colora-blocks2-5-two-branch", "colora-blocks2-5-peft-lora-r8", "smallcnn-full", "smallcnn-head-only",
        "smallvit-full",
    ]  # fmt: skip
    related = {c.name: contenders.full_beside(c, found) for c in found}
    assert related["vit-lora"].name == "smallvit-full" and related["vim"] is None
    assert related["smallvit-full"].settings["head"] == "linear"
    full = lineup(profile())[0]
    assert contenders.full_beside(full, [replace(full, image_size=64)]) is None


def test_growth_points_are_those_of_every_sweep_and_alpha_follows_the_rank():
    growth = {"methods": ["full", "conv-lora-r8"], "batch_sizes": [8, 16], "image_sizes": [32, 64], "ranks": [2, 8]}
    params = profile(("full", "conv-lora-r8"), {"growth": growth})
    points = contenders.growth(params)
    shown = [(c.sweep, c.name, c.image_size, c.train.batch_size, c.settings.get("rank")) for c in points]
    assert shown == [
        ("batch", "full", 32, 8, None), ("batch", "full", 32, 16, None),
        ("image", "full", 32, 16, None), ("image", "full", 64, 16, None), ("rank", "full", 32, 16, None),
        ("batch", "conv-lora-r8", 32, 8, 8), ("batch", "conv-lora-r8", 32, 16, 8),
        ("image", "conv-lora-r8", 32, 16, 8), ("image", "conv-lora-r8", 64, 16, 8),
        ("rank", "conv-lora-r8", 32, 16, 2), ("rank", "conv-lora-r8", 32, 16, 8),
    ]  # fmt: skip
    assert points[-2].settings["alpha"] == 4
    for point in points:  # full fine-tuning is related to itself, also where sweeps share a point
        reference = contenders.full_beside(point, points)
        assert (reference.name, reference.sweep) == ("full", point.sweep)


@pytest.mark.parametrize("alpha", [{}, {"alpha": None}])
def test_an_alpha_left_to_its_default_follows_the_rank_by_itself(alpha):
    methods = {"lora": {"family": "peft", "tuner": "lora", "rank": 8, **alpha}}
    points = contenders.growth(profile(methods, {"growth": {"methods": ["lora"], "ranks": [2, 4]}}))
    assert [(c.settings["rank"], c.settings.get("alpha")) for c in points] == [(2, None), (4, None)]


def test_a_compiled_network_is_related_to_a_compiled_one():
    methods = {name: dict(tiny_params()["method"][name]) for name in ("full", "colora-blocks2-5")}
    methods["colora-blocks2-5"]["train"] = {"compile": True}
    found = lineup(profile(methods))
    full, ours, *peers = found
    related = contenders.full_beside(ours, found)
    assert contenders.full_beside(full, found) is full and (related.name, related.role) == (
        "smallcnn-full",
        "reference",
    )
    assert all(contender.train.compile for contender in [related, *peers])
    points = contenders.growth(profile(methods, {"growth": {"methods": list(methods), "ranks": [2]}}))
    assert contenders.full_beside(points[0], points) is points[0] and contenders.full_beside(points[1], points) is None


@pytest.mark.parametrize(
    "section, message",
    [
        ({"references_of": ["full"]}, "cost.references_of: 'full' is no CoLoRA method"),
        ({"references_of": ["colra-blocks2-5"]}, "did you mean 'colora-blocks2-5'"),
        ({"methods": ["ful"]}, "no method 'ful'"),
        ({"growth": {"methods": ["nobody"], "batch_sizes": [2]}}, "no method 'nobody'"),
    ],
)  # fmt: skip
def test_sections_that_ask_for_what_is_not_there(section, message):
    with pytest.raises(ParamsError, match=message):
        costing.plan(profile(section=section))


def test_the_section_may_name_the_methods_that_are_measured():
    (found,) = costing.plan(profile(section={"methods": ["colora-blocks2-5"], "references_of": []})).values()
    assert [contender.name for contender in found] == ["colora-blocks2-5", "smallcnn-full"]  # what its ratios are to
