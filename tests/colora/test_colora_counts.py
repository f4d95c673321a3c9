"""Trainable parameters on VGG16 with the paper's head against its table."""

import pytest
import torch
import torchvision
from torch import nn

import colora
from colora import ColoraConfig

# Index in torchvision's vgg16().features of the first convolution of each block.
FIRST = {1: 0, 2: 5, 3: 10, 4: 17, 5: 24}


def paper_model():
    with torch.device("meta"):
        head = nn.Sequential(
            nn.Conv2d(512, 128, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6272, 128), nn.ReLU(), nn.Linear(128, 4)
        )
        return nn.ModuleDict({"features": torchvision.models.vgg16().features, "head": head})


def count(first_block, **config):
    model = paper_model()
    convs = [
        f"features.{i}"
        for i, layer in enumerate(model["features"])
        if isinstance(layer, nn.Conv2d) and i >= FIRST[first_block]
    ]
    colora.inject(model, ColoraConfig(target_modules=convs, modules_to_save=["head"], **config))
    return colora.trainable_parameters(model)


def test_the_model_is_the_papers():
    model = paper_model()
    assert sum(p.numel() for p in model.parameters()) == 15_583_812
    assert sum(p.numel() for p in model["head"].parameters()) == 869_124


@pytest.mark.parametrize(
    "first_block, both_biases, depthwise_bias_only",
    [
        (1, 2_550_084, 2_545_860),
        (2, 2_544_388, 2_540_292),
        (3, 2_516_996, 2_513_156),
        (4, 2_344_708, 2_341_636),
        (5, 1_672_452, 1_670_916),
    ],
)
def test_table_of_the_paper(first_block, both_biases, depthwise_bias_only):
    assert count(first_block, pointwise_bias=True) == both_biases
    assert count(first_block) == depthwise_bias_only


def test_the_papers_pointwise_only_count_is_that_of_depthwise_only():
    assert count(2, components="depthwise") == 910_084
    assert count(2, components="pointwise") == 869_124 + 1_630_208
