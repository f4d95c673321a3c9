"""The benchmark of both ways to CoLoRA's gradients: its rule is colora's, its fit finds a constant that is there."""

import dataclasses

import pandas as pd
import pytest
import torch

from colora.fused import DEPTHWISE_COST, kernel_is_cheaper
from pipelines.costs import gradients
from pipelines.costs.gradients import Layer


def test_the_rule_is_coloras():
    for device, constant in DEPTHWISE_COST.items():
        for layer in gradients.grid():
            shape = torch.Size((layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel))
            chosen = kernel_is_cheaper(shape, (layer.stride, layer.stride), device)
            assert chosen == (layer.breakeven <= constant), layer


@pytest.mark.parametrize("constant", [20, 60, 150])
def test_the_fit_finds_the_constant_that_made_the_times(constant):
    widths = sorted(layer.breakeven for layer in gradients.grid())
    times = pd.DataFrame(
        {"breakeven": widths, "kernel_ms": 1.0, "branch_ms": [0.5 + 1.5 * (w <= constant) for w in widths]}
    )
    found = gradients.fit(times)
    assert set(gradients.losses(times, found)) == {1.0}
    assert max(w for w in widths if w <= constant) <= found < min(w for w in widths if w > constant)
    assert (gradients.losses(times, 0.0) == 2).sum() == sum(0 < w <= constant for w in widths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_layers_are_measured_by_both_ways(dtype):
    layers = [Layer(1, 4, 6, 3, 2, 8), Layer(1, 4, 4, 2, 2, 8, groups=2)]
    times = gradients.measure(layers, torch.device("cpu"), dtype, count=1)
    for layer, row in zip(layers, times.to_dict("records"), strict=True):
        assert {name: row[name] for name in vars(layer)} == dataclasses.asdict(layer)
        assert row["branch_ms"] > 0 and row["kernel_ms"] > 0
