"""Where the time of a training step goes, by the profiler's shares in cost.csv: a stacked bar a method or peer."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import Patch

from report import claim_costs, cost, layout, style
from report.results import Results

# Of `pipelines.costs.measure.KINDS`; colours of Okabe and Ito, which people with any colour vision tell apart.
KINDS = {
    "dense": ("convolutions", "#0072B2"),
    "small": ("1x1 and depthwise convolutions", "#56B4E9"),
    "product": ("matrix products, attention", "#009E73"),
    "norm": ("normalisation", "#E69F00"),
    "optimizer": ("optimizer", "#D55E00"),
    "rest": ("elementwise, pooling, copies", "#BBBBBB"),
}
CAPTION = (
    "A bar's length is the measured time of a training step relative to full fine-tuning on the same network, its "
    "parts the shares of the time in operators (on a GPU in their kernels) by torch's profiler, over two steps. Methods "
    "without full fine-tuning of their network fill the line: shares alone. Under torch.compile, what was fused counts "
    "among the elementwise work. Numbers: columns share_dense to share_rest of cost.csv."
)


def cost_shares(results: Results) -> plt.Figure | None:
    """A row a method or peer; None where cost.csv has no shares."""
    frame = cost.read(results)
    columns = [f"share_{kind}" for kind in KINDS]
    if frame.empty or not set(columns) <= set(frame) or frame[columns].isna().all(axis=None):
        return None
    frame = frame[frame[columns].notna().all(axis=1)]
    figure, axes, rows, y = cost.by_setting(
        results, frame, ["Training step × full fine-tuning"],
        f"Where the time of a training step goes\nprofile {results.profile}, random weights, "
        f"{claim_costs.machine(results)}", legend=2,
    )  # fmt: skip
    (axis,) = axes
    for place, row in enumerate(rows):
        if not hasattr(row, "method"):
            continue
        related = pd.notna(row.step_ratio)
        left, length = 0.0, row.step_ratio if related else 1.0
        for kind, (_, color) in KINDS.items():
            width = length * getattr(row, f"share_{kind}")
            axis.barh(y[place], width, 0.66, left, color=color, alpha=1.0 if related else 0.45)
            left += width
        size = f"{style.three_digits(row.step_ms)} ms"
        layout.write_beside(axis, y[place], f"{row.step_ratio:.2f}×  {size}" if related else f"shares, {size}", row.ink)
    axis.axvline(1, color="black", lw=0.7, ls=(0, (4, 3)), zorder=3)
    axis.set_xlim(0, None)
    layout.legend_below(figure, [Patch(color=color, label=words) for words, color in KINDS.values()], columns=3)
    return figure
