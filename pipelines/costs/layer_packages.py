"""Reference implementations on PyPI of the layers that `layer_cases` measures: `pip install -e '.[reference]'`.

Each function takes our layer and the tensors that our form is given, and returns the package's form of the same
function with the tensors that it is given: the input and, as far as it has parameters of its own, those.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Form = tuple[Callable[..., Tensor], list[Tensor]]


def inkan(layer, inputs: list[Tensor]) -> Form:
    """inkan's KANLayer in its eager form, with our curves: base and spline weights in one matrix, and no scaler."""
    package = importlib.import_module("inkan")
    x, base, spline, scaler = inputs
    theirs = package.KANLayer(
        layer.in_features, layer.out_features, layer.grid_size, layer.spline_order, grid_range=layer.grid_range,
        compile_basis=False,
    ).to(x.device)  # fmt: skip
    with torch.no_grad():
        theirs.weight = nn.Parameter(torch.cat([(spline * scaler.unsqueeze(-1)).flatten(1), base], 1))
    return lambda x, _: theirs(x), [x, theirs.weight]


def mambapy(layer, inputs: list[Tensor]) -> Form:
    """mambapy's parallel scan as its MambaBlock.selective_scan calls it; directions are rows of its batch."""
    pscan = importlib.import_module("mambapy.pscan").pscan

    def scan(u, delta, A, B, C, D, bias):
        groups, states = B.shape[1], A.shape[1]
        u, delta = (M.unflatten(1, (groups, -1)).transpose(2, 3) for M in (u, F.softplus(delta + bias[:, None])))
        B, C = B.transpose(2, 3), C.transpose(2, 3)  # batch, group, length, states
        decay = torch.exp(delta[..., None] * A.view(groups, 1, -1, states))
        added = delta[..., None] * B.unsqueeze(3) * u[..., None]
        states = pscan(decay.flatten(0, 1), added.flatten(0, 1)).view_as(added)
        y = (states @ C.unsqueeze(-1)).squeeze(-1) + D.view(groups, 1, -1) * u
        return y.transpose(2, 3).flatten(1, 2)

    return scan, inputs


PACKAGES: dict[str, Callable[..., Form]] = {"inkan": inkan, "mambapy": mambapy}
