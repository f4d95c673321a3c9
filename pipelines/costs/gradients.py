"""Time both exact ways to CoLoRA's gradients on a grid of layers, and fit the constant by which colora chooses.

`python -m pipelines.costs.gradients [--device cuda] [--dtype bfloat16]`, on an otherwise idle machine, prints
milliseconds a layer and the constant with the least mean loss. It belongs in `DEPTHWISE_COST` of colora/fused.py, where
what it counts is explained.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from colora import ColoraConfig, ColoraConv2d
from colora.fused import DEPTHWISE_COST
from pipelines.costs.measure import rounds, seconds

BATCH, IMAGE = 8, 28  # images, and the side of most layers' maps
ROUNDS = 9
TOLERATED = 1.1  # no layer should take longer than this times the better way


@dataclass(frozen=True)
class Layer:
    """A square convolution of maps of `image` pixels a side; channels last, as the training loop has them."""

    batch: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    image: int
    groups: int = 1

    @property
    def breakeven(self) -> float:
        """The least constant at which `colora.fused.kernel_is_cheaper` says yes."""
        inputs = self.inputs // self.groups
        return inputs - 2 * inputs * (self.stride / self.kernel) ** 2


def grid(batch: int = BATCH, image: int = IMAGE) -> list[Layer]:
    """Stems, patches, grouped and depthwise layers, and widths about the point where both ways take as long."""
    layers = [
        Layer(batch, 3, 64, 3, 1, 2 * image), Layer(batch, 3, 64, 7, 2, 4 * image),
        Layer(batch, 3, 96, 4, 4, 4 * image), Layer(batch, 96, 192, 2, 2, image),
        Layer(batch, 64, 64, 1, 1, image), Layer(batch, 256, 64, 1, 1, image),
        Layer(batch, 96, 96, 7, 1, image, 96), Layer(batch, 256, 256, 3, 1, image, 32),
    ]  # fmt: skip
    for kernel, stride in ((3, 1), (5, 1), (7, 1), (3, 2), (5, 2)):
        layers += [Layer(batch, c, c, kernel, stride, image) for c in (16, 24, 32, 48, 64, 96, 128, 192, 256)]
    return layers


def measure(layers: Iterable[Layer], device: torch.device, dtype: torch.dtype, count: int = ROUNDS) -> pd.DataFrame:
    """Median milliseconds of the gradients of pointwise and depthwise kernel by either way: a row a layer.

    Parameters are in float32; bfloat16 is computed in under autocast, as in training.
    """
    rows = []
    for layer in layers:
        conv = torch.nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, layer.stride,
            padding=(layer.kernel - 1) // 2 if layer.kernel > layer.stride else 0, groups=layer.groups, bias=False,
        )  # fmt: skip
        x = torch.randn(layer.batch, layer.inputs, layer.image, layer.image, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        found = rounds({way: _work(conv, x, way, dtype) for way in ("branch", "kernel")}, count, seed=0)
        times = {f"{way}_ms": np.median(own["ms"]) for way, own in found.items()}
        rows.append({**vars(layer), **times, "breakeven": layer.breakeven})
    return pd.DataFrame(rows)


def _work(conv: torch.nn.Conv2d, x: torch.Tensor, way: str, dtype: torch.dtype):
    """What times both small gradients of an adapted convolution, done once already."""
    adapted = ColoraConv2d.from_conv(conv, ColoraConfig(gradient=way))
    adapted = adapted.to(x.device).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(adapted.depthwise)
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        y = adapted(x)
    wanted, dy = [adapted.pointwise, adapted.depthwise], torch.randn_like(y)

    def work():
        return {"ms": 1000 * seconds(lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True), x.device)}

    work()
    return work


def losses(times: pd.DataFrame, constant: float) -> pd.Series:
    """For each layer, the chosen way's time over the better one's: 1 where the choice is right."""
    chosen = times.kernel_ms.where(times.breakeven <= constant, times.branch_ms)
    return chosen / times[["kernel_ms", "branch_ms"]].min(axis=1)


def fit(times: pd.DataFrame) -> float:
    """The constant with the least mean logarithm of `losses`, in the middle of the range where that is the least."""
    edges = [0.0, *np.unique(times.breakeven[times.breakeven > 0])]
    best = int(np.argmin([np.log(losses(times, edge)).mean() for edge in edges]))
    return float(np.mean(edges[best : best + 2]))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.costs.gradients", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="(default: %(default)s)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    times = measure(grid(), device, getattr(torch, args.dtype))
    print(times.sort_values("breakeven").round(3).to_string(index=False))
    current = DEPTHWISE_COST.get(device.type, DEPTHWISE_COST["cuda"])
    for name, constant in (("fitted", fit(times)), ("colora's", current)):
        found = losses(times, constant)
        print(
            f"{name} constant {constant:g}: x{np.exp(np.log(found).mean()):.3f} of the better way on average, "
            f"x{found.max():.2f} at worst, {(found > TOLERATED).sum()} of {len(found)} layers above x{TOLERATED}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
