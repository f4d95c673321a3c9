"""The benchmark of both ways to CoLoRA's gradients: its rule is colora's, its fit finds a constant that is there."""

import dataclasses

import pytest
import torch

from colora.fused import DEPTHWISE_COST, kernel_is_cheaper
from pipelines.costs import gradients
from pipelines.costs.gradients import Layer


def test_the_rule_is_coloras():
    for device, constant in DEPTHWISE_COST.items():
        for layer in gradients.grid(8, 28):
            shape = torch.Size((layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel))
            chosen = kernel_is_cheaper(shape, (layer.stride, layer.stride), device)
            assert chosen == (layer.breakeven <= constant), layer


@pytest.mark.parametrize("constant", [20, 60, 150])
def test_the_fit_finds_the_constant_that_made_the_times(constant):
    layers = gradients.grid(8, 28)
    rows = [{"kernel_ms": 1.0, "branch_ms": 2.0 if layer.breakeven <= constant else 0.5} for layer in layers]
    found = gradients.fit(layers, rows)
    assert set(gradients.losses(layers, rows, found)) == {1.0}
    widths = sorted(layer.breakeven for layer in layers)
    assert max(w for w in widths if w <= constant) <= found < min(w for w in widths if w > constant)
    assert gradients.losses(layers, rows, 0.0).count(2.0) == sum(0 < w <= constant for w in widths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_layers_are_measured_by_both_ways(dtype):
    layers = [Layer(1, 4, 6, 3, 2, 8), Layer(1, 4, 4, 2, 2, 8, groups=2)]
    rows = gradients.measure(layers, torch.device("cpu"), dtype, rounds=1)
    for layer, row in zip(layers, rows, strict=True):
        assert {name: row[name] for name in vars(layer)} == dataclasses.asdict(layer)
        assert row["branch_ms"] > 0 and row["kernel_ms"] > 0
