"""Time and memory of a training step over full fine-tuning's, a panel a network, as `pipelines.cost` measured them."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import number, percent, setting, span, three_digits, with_interval

GROUP, ORDER = "Cost", 20
SHOWN = 4  # panels; the table has all


def section(results: Results) -> Section | None:
    rows = styled(results.cost)
    if rows.empty:
        return None
    where = results.cost_machine
    of_colora = list(dict.fromkeys(rows.panel[(rows.family == "colora") & (rows.role == "method")]))[:SHOWN]
    shown = rows[rows.panel.isin(of_colora or list(rows.panel[:1]))]
    caption = (
        "Training step (dot, with the 95 % interval of the median) and its peak memory (tick) over full "
        f"fine-tuning's on the same network; log scale, left of the line is cheaper. {how(rows, where)} Hollow: "
        "reference implementations at the same places."
    )
    told = "; ".join(
        f"{row.method} on {row.panel}: {row.step_ratio:.2f} and {row.peak_ratio:.2f}" for row in shown.itertuples()
    )
    alt = f"Step time and memory over full fine-tuning's: {told}."
    tables = [table(results.cost, where, results.profile)]
    return Section(finding(rows, results.declared[:1]), caption, alt, figure(shown), tables)


def styled(cost: pd.DataFrame) -> pd.DataFrame:
    """The rows that are related to full fine-tuning, with panel, color and ink; cheapest first within a panel."""
    rows = cost[cost.step_ratio.notna() & (cost.family.ne("full") | cost.role.ne("method"))]
    colors = [drawing.looks(row.family, row.backbone).color for row in rows.itertuples()]
    rows = rows.assign(panel=list(map(setting, rows.itertuples())), color=colors, ink=list(map(drawing.ink, colors)))
    panels = list(rows.panel.unique())
    rows = rows.sort_values("step_ratio", kind="stable")
    return rows.sort_values("panel", key=lambda own: own.map(panels.index), kind="stable")


def finding(rows: pd.DataFrame, declared: list[str]) -> str:
    """The declared CoLoRA method's step and memory on every network where it was measured."""
    own = rows[(rows.family == "colora") & (rows.role == "method")]
    own = own[own.method.isin(declared)] if own.method.isin(declared).any() else own
    first = own.iloc[0] if len(own) else rows.iloc[0]
    time, memory = (percent(round(first[name], 2)) for name in ("step_ratio", "peak_ratio"))
    if own.empty:
        return f"{first.method} takes {time} of a full fine-tuning step on {first.backbone}."
    own = own.drop_duplicates("panel")
    text = f"A step of {first.method} takes {time} of the time and {memory} of the memory of full fine-tuning on "
    if len(own) == 1:
        return f"{text}{first.backbone}."
    time, memory = (
        f"{100 * own[name].min():.0f} to {percent(round(own[name].max(), 2))}" for name in ("step_ratio", "peak_ratio")
    )
    return f"{text}{first.backbone}; {time} and {memory} over {len(own)} networks and settings."


def figure(rows: pd.DataFrame) -> Figure:
    """A row a method, a panel a network and setting. rows: as `styled` gives them."""
    panels = dict(list(rows.groupby("panel", sort=False)))
    heights = [len(own) + 0.3 for own in panels.values()]
    figure, axes = plt.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=heights,
        figsize=(drawing.WIDTH, 0.27 * sum(heights) + 0.33 * len(panels) + 0.9),
    )  # fmt: skip
    for axis, (panel, own) in zip(axes[:, 0], panels.items(), strict=True):
        drawing.label_rows(axis, list(own.method), dict(zip(own.method, own.ink, strict=True)), width=32)
        axis.set_title(panel)
        axis.axvline(1, **drawing.REFERENCE_LINE)
        for place, row in enumerate(own.itertuples()):
            fill = row.color if row.role == "method" else "white"
            ends = [row.step_ratio_lo, row.step_ratio_hi]
            axis.plot(ends, [place] * 2, color=row.color, lw=2, alpha=0.6, zorder=2)
            axis.plot(row.peak_ratio, place, "|", ms=11, mew=2.4, color=row.color, zorder=3)
            axis.plot(row.step_ratio, place, "o", ms=6.5, mfc=fill, mec=row.color, mew=1.3, zorder=4)
            drawing.beside(axis, place, f"{row.step_ratio:.2f}\N{MULTIPLICATION SIGN} {three_digits(row.step_ms)} ms")
    drawn = rows[["step_ratio", "peak_ratio", "step_ratio_lo", "step_ratio_hi"]]
    last = axes[-1, 0]
    last.set(xscale="log", xlabel="\N{MULTIPLICATION SIGN} full fine-tuning")
    last.set_xlim(drawn.min().min() / 1.12, max(drawn.max().max(), 1) * 1.12)
    drawing.log_ticks(last)
    drawing.below(figure, [
        Line2D([], [], ls="", marker="o", ms=6.5, color=drawing.INK, label="step time"),
        Line2D([], [], ls="", marker="|", ms=11, mew=2.4, color=drawing.INK, label="peak memory"),
        Line2D([], [], ls="", marker="o", ms=6.5, mfc="white", mec=drawing.INK, mew=1.3, label="reference code"),
    ])  # fmt: skip
    return figure


def how(rows: pd.DataFrame, where: str) -> str:
    """On what and how the readings were taken."""
    repeated = f" in each of {span(rows.processes)} processes" * bool((rows.processes >= 2).all())
    return (
        f"Measured on {where}, contenders taking turns, {span(rows.rounds)} rounds{repeated}; ratios within a round, "
        f"intervals over {'processes' if repeated else 'rounds'}."
    )


def table(cost: pd.DataFrame, where: str, profile: str) -> Table:
    """Time, memory and inference of everything measured, with ratios to full fine-tuning."""
    rows = list(cost.itertuples())
    text = pd.DataFrame({
        "Method": [r.method + (" (reference)" if r.role != "method" else "") for r in rows],
        "Network": [setting(r) for r in rows],
        "Step, ms": [with_interval(r.step_ms, r.step_ms_lo, r.step_ms_hi, three_digits) for r in rows],
        "Time × full": [with_interval(r.step_ratio, r.step_ratio_lo, r.step_ratio_hi) for r in rows],
        "Fed × ready": [with_interval(r.input_ratio, r.input_ratio_lo, r.input_ratio_hi) for r in rows],
        "Peak, MiB": [three_digits(r.peak_mib) for r in rows],
        "Memory × full": [number(r.peak_ratio, ".2f") for r in rows],
        "Images/s": [three_digits(r.images_per_s) for r in rows],
        "Of the ceiling": [number(r.ceiling_share, ".0%") for r in rows],
        "One image, ms": [three_digits(r.inference_ms) for r in rows],
        "merged, ms": [three_digits(r.inference_merged_ms) for r in rows],
        "× untouched": [with_interval(r.inference_ratio, r.inference_ratio_lo, r.inference_ratio_hi) for r in rows],
    })  # fmt: skip
    note = (
        f"{how(cost, where)} Step: forward, loss, backward and optimizer of a batch that lies ready, in the recipe's "
        "precision and layout, from random weights. Fed × ready: with the batch gathered and augmented first, as in "
        "training. Peak: the most bytes in use at once through torch's allocator. Of the ceiling: operations a "
        "second of a step as a share of one large matrix product's or convolution's. × untouched: a request of one "
        "image to the merged network, against the fully fine-tuned one. A dash where the network has no full "
        "fine-tuning."
    )
    title = f"Cost side by side: profile {profile}, random weights, {where}"
    return Table("side_by_side", title, note, cost, text, left=2)
