"""Time both exact ways to CoLoRA's gradients on a grid of layers, and fit the constant by which colora chooses.

`python -m pipelines.costs.gradients [--device cuda] [--dtype bfloat16] [--out layers.csv]`, on an otherwise idle
machine, prints milliseconds a layer and the constant with the least mean loss. It belongs in `DEPTHWISE_COST` of
colora/fused.py, where what it counts is explained.
"""

import argparse
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


def grid(batch: int, image: int) -> list[Layer]:
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


def measure(layers: Iterable[Layer], device, dtype, rounds: int) -> list[dict]:
    """Median milliseconds of the gradients of pointwise and depthwise kernel by either way: a row a layer.

    Parameters are in float32; bfloat16 is computed in under autocast, as in training.
    """
    import torch

    from colora import ColoraConfig, ColoraConv2d
    from pipelines.costs.measure import seconds

    rows = []
    for layer in layers:
        conv = torch.nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, layer.stride,
            padding=(layer.kernel - 1) // 2 if layer.kernel > layer.stride else 0, groups=layer.groups, bias=False,
        )  # fmt: skip
        x = torch.randn(layer.batch, layer.inputs, layer.image, layer.image, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        works = {}
        for way in ("branch", "kernel"):
            adapted = ColoraConv2d.from_conv(conv, ColoraConfig(gradient=way))
            adapted = adapted.to(device).to(memory_format=torch.channels_last)
            torch.nn.init.normal_(adapted.depthwise)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                y = adapted(x)
            wanted, dy = [adapted.pointwise, adapted.depthwise], torch.randn_like(y)

            def work(y=y, wanted=wanted, dy=dy):
                torch.autograd.grad(y, wanted, dy, retain_graph=True)

            works[way] = work
            work()
        times = {way: [] for way in works}
        for _ in range(rounds):
            for way, work in works.items():
                times[way].append(1000 * seconds(work, device))
        rows.append({**vars(layer), **{f"{way}_ms": statistics.median(found) for way, found in times.items()}})
    return rows


def losses(layers: Sequence[Layer], rows: Sequence[dict], constant: float) -> list[float]:
    """For each layer, the chosen way's time over the better one's: 1 where the choice is right."""
    return [
        row["kernel_ms" if layer.breakeven <= constant else "branch_ms"] / min(row["kernel_ms"], row["branch_ms"])
        for layer, row in zip(layers, rows, strict=True)
    ]


def fit(layers: Sequence[Layer], rows: Sequence[dict]) -> float:
    """The constant with the least mean logarithm of `losses`, in the middle of the range where that is the least."""
    edges = [0.0, *sorted({layer.breakeven for layer in layers if layer.breakeven > 0})]
    means = [statistics.fmean(map(math.log, losses(layers, rows, edge))) for edge in edges]
    best = means.index(min(means))
    return edges[best] if best + 1 == len(edges) else (edges[best] + edges[best + 1]) / 2


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.costs.gradients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images (default: %(default)s)")
    parser.add_argument("--image", type=int, default=28, help="side of most layers' maps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="timings of a layer and way (default: %(default)s)")
    parser.add_argument("--out", help="CSV file for the times of each layer")
    args = parser.parse_args(argv)
    import pandas as pd
    import torch

    from colora.fused import DEPTHWISE_COST

    device, layers = torch.device(args.device), grid(args.batch, args.image)
    rows = measure(layers, device, getattr(torch, args.dtype), args.rounds)
    frame = pd.DataFrame(rows).assign(breakeven=[layer.breakeven for layer in layers])
    print(frame.sort_values("breakeven").round(3).to_string(index=False))
    if args.out:
        frame.to_csv(args.out, index=False)
    current = DEPTHWISE_COST.get(device.type, DEPTHWISE_COST["cuda"])
    for name, constant in (("fitted", fit(layers, rows)), ("colora's", current)):
        found = losses(layers, rows, constant)
        mean, over = math.exp(statistics.fmean(map(math.log, found))), sum(loss > TOLERATED for loss in found)
        print(f"{name} constant {constant:g}: x{mean:.3f} of the better way on average, x{max(found):.2f} at worst, "
              f"{over} of {len(found)} layers above x{TOLERATED}")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
