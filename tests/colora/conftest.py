"""A small model, its training, and its saved adapter."""

import pytest
import torch
from torch import nn

import colora
from colora import ColoraConfig

CONFIG = ColoraConfig(target_modules=["0", "3"], modules_to_save=["head"])
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"


class Net(nn.Sequential):
    def __init__(self, width=6):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, bias=False),
            nn.Conv2d(width, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.add_module("head", nn.Linear(4, 2))


def base():
    torch.manual_seed(0)
    return Net()


def train(model, steps=3, merge_reset=False):
    torch.manual_seed(7)
    x = torch.randn(8, 3, 10, 10)
    model.train()
    for _ in range(steps):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(8) % 2).backward()
            optimizer.step()
        if merge_reset:
            colora.merge(model)
            colora.reset(model)
    return model.eval()


def trained(config=CONFIG, **kwargs):
    return train(colora.inject(base(), config), **kwargs)


def outputs(model):
    with torch.no_grad():
        return model.eval()(torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def saved(tmp_path):
    model = trained()
    colora.save_adapter(model, tmp_path / "adapter")
    return model, tmp_path / "adapter"
