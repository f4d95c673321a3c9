"""No method trains by an operator that torch has no reproducible CUDA kernel for; found without a GPU, on the meta
device.

With `deterministic: true` torch raises there, which would be seen on the GPU only.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import baselines
from pipelines.profile import compose

# What raises on CUDA by the list of torch.use_deterministic_algorithms: how the operators' names start.
WITHOUT = (
    "avg_pool3d_backward", "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward",
    "max_pool3d_with_indices_backward", "adaptive_max_pool2d_backward", "fractional_max_pool", "max_unpool",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    "upsample_bilinear2d_aa_backward", "upsample_bicubic2d_aa_backward", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "replication_pad", "nll_loss2d", "ctc_loss_backward",
    "embedding_bag", "put_", "histc", "bincount", "kthvalue", "median", "grid_sampler_2d_backward",
    "grid_sampler_3d_backward", "cumsum", "scatter_reduce",
)  # fmt: skip
PROFILES = {name: compose(name) for name in ("paper", "oct1k-224")}


class Operators(TorchDispatchMode):
    """The names of the operators called within, in the backward pass too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def without_reproducible_kernel(network, images) -> list[str]:
    with Operators() as seen:
        F.cross_entropy(network(images).float(), torch.zeros(len(images), dtype=torch.long, device="meta")).backward()
    assert any("backward" in name for name in seen.names)
    return sorted(name for name in seen.names if name.partition("::")[2].lstrip("_").startswith(WITHOUT))


@pytest.mark.parametrize(
    "profile, method", [(name, method) for name, params in PROFILES.items() for method in params.method]
)
def test_every_operator_of_a_step_has_a_reproducible_cuda_kernel(profile, method):
    params = PROFILES[profile]
    with torch.device("meta"):
        network = baselines.build(
            method, params.settings(method), num_classes=4, image_size=params.data.image_size, weights="random"
        )
        images = torch.empty(2, 3, params.data.image_size, params.data.image_size)
    assert without_reproducible_kernel(network.train(), images) == []


def test_one_without_is_found():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Flatten()).to("meta")
    found = without_reproducible_kernel(network, torch.empty(2, 3, 16, 16, device="meta"))
    assert found == ["aten::_adaptive_avg_pool2d_backward"]
