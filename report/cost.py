"""What `pipelines.cost` measured side by side: its table, the ratios to full fine-tuning, and how cost grows.

cost.csv and cost_growth.csv have no rows in a profile without a `cost` section, and are not there in results measured
before there was any: no table and no figure then.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from report import claim_costs, layout, style
from report.results import Results, _json
from report.tables import DASH, Table, interval, number, seconds

COLUMNS = [
    "setting", "family", "of", "precision", "trainable", "step_ms", "step_ms_lo", "step_ms_hi", "peak_ratio",
    "images_per_s", "epoch_s", "ceiling_share", "inference_ms", "inference_merged_ms", "rounds", "input_ratio",
    "input_ratio_lo", "input_ratio_hi",
]  # fmt: skip
GROWTH_COLUMNS = ["sweep", "rank", "method", "family", "backbone", "image_size", "batch_size", "step_ms", "peak_mib"]
SWEEPS = {"batch": ("batch_size", "Batch size"), "image": ("image_size", "Image size, px"), "rank": ("rank", "Rank")}


def read(results: Results) -> pd.DataFrame:
    """cost.csv with the columns that say how a row is shown, family beside family within a setting.

    Raises:
        ReportError: the file is not readable or lacks a column.
    """
    needed = list(dict.fromkeys([*claim_costs.NEEDED, *COLUMNS]))
    frame = claim_costs.read(results, needed=needed)
    return pd.DataFrame(columns=needed) if frame is None else _styled(frame)


def read_growth(results: Results) -> pd.DataFrame:
    """cost_growth.csv, as `read` gives cost.csv; empty where there is none."""
    frame = claim_costs.read(results, "cost_growth.csv", GROWTH_COLUMNS)
    if frame is None:
        return pd.DataFrame(columns=GROWTH_COLUMNS)
    return _styled(frame.assign(setting="", role="method"))


def _styled(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.empty:
        return frame
    group = [style.group(family, backbone) for family, backbone in zip(frame.family, frame.backbone, strict=True)]
    kinds = list(zip(group, frame.family, strict=True))
    order = style.in_order(kinds)
    colors = style.colors(order)
    color = [colors[kind] for kind in kinds]
    settings = list(dict.fromkeys(frame.setting))
    frame = frame.assign(
        shown=frame.method, color=color, ink=[style.ink(c) for c in color], place=[order.index(kind) for kind in kinds],
        part=[settings.index(setting) for setting in frame.setting],
    )  # fmt: skip
    return frame.sort_values(["part", "place"], kind="stable").reset_index(drop=True)


def side_by_side(results: Results) -> Table:
    """Time, memory and inference of every method and peer, with their ratios to full fine-tuning."""
    frame = read(results)
    columns = [name for name in frame if name not in ("shown", "color", "ink", "place", "part")]
    peer = np.where(frame.role == "peer", " (peer)", "")
    text = pd.DataFrame({
        "Method": frame.method + peer,
        "Network": [
            f"{r.backbone}, {r.image_size} px, batch {r.batch_size}, {r.precision}{claim_costs.compiled(r)}"
            for r in frame.itertuples()
        ],
        "Step, ms": [_with(r.step_ms, r.step_ms_lo, r.step_ms_hi, seconds) for r in frame.itertuples()],
        "Time × full": [_with(r.step_ratio, r.step_ratio_lo, r.step_ratio_hi) for r in frame.itertuples()],
        "Fed × ready": [_with(r.input_ratio, r.input_ratio_lo, r.input_ratio_hi) for r in frame.itertuples()],
        "Peak, MiB": [seconds(v) for v in frame.peak_mib],
        "Memory × full": [number(v, ".2f") for v in frame.peak_ratio],
        "Images/s": [seconds(v) for v in frame.images_per_s],
        "s/epoch": [seconds(v) for v in frame.epoch_s],
        "Of the ceiling": [number(v, ".0%") for v in frame.ceiling_share],
        "One image, ms": [seconds(v) for v in frame.inference_ms],
        "merged, ms": [seconds(v) for v in frame.inference_merged_ms],
        "× untouched": [
            _with(r.inference_ratio, r.inference_ratio_lo, r.inference_ratio_hi) for r in frame.itertuples()
        ],
    })  # fmt: skip
    note = (
        f"{_how(results, frame)} Step: forward, loss, backward and optimizer of one batch that lies ready, in the "
        "recipe's own precision, layout and optimizer, from random weights. Fed × ready: a step of a method whose batch "
        "is gathered, augmented and normalised first, as in training, against one whose batch lies ready. Peak "
        "memory: the most bytes in use at once during a step through torch's allocator, network, optimizer's state, "
        "gradients, activations and workspaces included, the program itself not. s/epoch: steps of an epoch of the "
        "profile's training images, computed. Of the ceiling: operations a second of a step (matrix products and "
        "convolutions as they run, elementwise work not counted) as a share of those of one large matrix product or "
        "convolution, whichever is faster, in the same precision. One image: a request of one image; merged: after "
        "the branch was merged into the kernels; × untouched: the merged network, or the one there is where nothing "
        "merges, against the fully fine-tuned one, which has the backbone's own layers. A dash where there is no full "
        "fine-tuning of the same network, as for those from scratch."
        if len(frame)
        else ""
    )
    title = f"Cost side by side: profile {results.profile}, random weights, {claim_costs.machine(results)}"
    return Table("side_by_side", title, note, frame[columns], text, left=2)


def cost_ratios(results: Results) -> plt.Figure | None:
    """Time and peak memory of a training step relative to full fine-tuning, a row a method or peer."""
    frame = read(results)
    if frame.empty:
        return None
    figure, axes, rows, y = by_setting(
        results, frame, ["Training step × full fine-tuning", "Peak memory × full fine-tuning"],
        f"Cost of a training step relative to full fine-tuning\nprofile {results.profile}, random weights, "
        f"{_rounds(frame)} rounds on {claim_costs.machine(results)}",
    )  # fmt: skip
    figure.subplots_adjust(wspace=0.7)  # for what is written beside the panels
    for axis, name, absolute, unit in zip(axes, ("step", "peak"), ("step_ms", "peak_mib"), ("ms", "MiB"), strict=True):
        axis.axvline(1, color="black", lw=0.7, ls=(0, (4, 3)), zorder=1)
        for place, row in enumerate(rows):
            if not hasattr(row, "method"):
                continue
            value, at = getattr(row, f"{name}_ratio"), y[place]
            size = f"{style.three_digits(getattr(row, absolute))} {unit}"
            if pd.isna(value):
                axis.annotate(
                    "nothing to relate to", (0.01, at), xycoords=axis.get_yaxis_transform(), va="center", fontsize=7.5,
                    color="#777777", style="italic",
                )  # fmt: skip
                layout.write_beside(axis, at, size, row.ink)
                continue
            if name == "step" and pd.notna(row.step_ratio_lo):
                axis.plot([row.step_ratio_lo, row.step_ratio_hi], [at] * 2, color=row.color, lw=1.6, zorder=2)
            fill = "white" if row.role == "peer" else row.color
            axis.plot(value, at, "o", ms=5, mfc=fill, mec=row.color, mew=1.2, zorder=3, clip_on=False)
            layout.write_beside(axis, at, f"{value:.2f}×  {size}", row.ink)
        axis.set_xlim(0, None)
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    layout.legend_below(figure, [
        Line2D([], [], marker="o", ls="", ms=5, color=style.INK, label="method"),
        Line2D([], [], marker="o", ls="", ms=5, mfc="white", mec=style.INK, mew=1.2, label="peer"),
        Line2D([], [], color=style.INK, lw=1.6, label="95 % interval of the median"),
        Line2D([], [], color="black", lw=0.7, ls=(0, (4, 3)), label="full fine-tuning"),
    ])  # fmt: skip
    return figure


def by_setting(results: Results, frame: pd.DataFrame, xlabels: list[str], title: str, **room):
    """Panels with a row a method or peer under the heading of its setting: (figure, axes, rows, height of each row).

    A row that heads a setting has no `method`. `room`: as `layout.method_rows` takes it.
    """
    rows, y, height = [], {}, 0.0
    for part, own in frame.groupby("part", sort=False):
        words = _in_two_lines(_heading(own))
        heading = pd.DataFrame([{"shown": words, "ink": style.INK, "part": part}])
        for place, row in enumerate([*heading.itertuples(), *own.itertuples()]):
            y[len(rows)] = height
            rows.append(row)
            height -= 1.0 if place else 1.15 + 0.3 * words.count("\n")
        height -= 0.45
    shown = pd.DataFrame([{"shown": row.shown, "ink": row.ink} for row in rows])
    figure, axes = layout.method_rows(results, y, xlabels, title, methods=shown, **{"legend": 1, **room})
    for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        label.set_weight("normal" if hasattr(row, "method") else "bold")
    return figure, axes, rows, y


def cost_growth(results: Results) -> plt.Figure | None:
    """Time and peak memory of a training step by batch size, image size and rank, a line a method."""
    frame = read_growth(results)
    sweeps = [name for name in SWEEPS if (frame.sweep == name).any()]
    if not sweeps:
        return None
    methods = frame.drop_duplicates("method")
    entries = -(-len(methods) // 4)
    below, above, height = 0.62 + 0.17 * entries, 0.66, 4.4 + 0.17 * entries
    figure, axes = plt.subplots(2, len(sweeps), figsize=(style.WIDTH, height), sharex="col", squeeze=False)
    figure.subplots_adjust(
        left=0.09, right=0.985, top=1 - above / height, bottom=below / height, wspace=0.28, hspace=0.12
    )
    for column, sweep in enumerate(sweeps):
        name, words = SWEEPS[sweep]
        own = frame[frame.sweep == sweep]
        ticks = sorted(own[name].dropna().unique())
        for axis, value in zip(axes[:, column], ("step_ms", "peak_mib"), strict=True):
            for row in methods.itertuples():
                line = own[own.method == row.method].sort_values(name)
                if line[name].isna().any() and len(ticks):  # a method without a rank
                    axis.axhline(line[value].iloc[0], color=row.color, lw=1.0, ls=(0, (4, 3)))
                elif len(line):
                    axis.plot(line[name], line[value], "o-", ms=3.6, lw=1.4, color=row.color)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.xaxis.set_minor_locator(plt.NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(axis="y")
        axes[1, column].set_xlabel(words)
    axes[0, 0].set_ylabel("Training step, ms")
    axes[1, 0].set_ylabel("Peak memory, MiB")
    layout.write_title(
        figure,
        f"How time and memory of a training step grow (log scales)\nprofile {results.profile}, random weights, "
        f"{claim_costs.machine(results)}",
    )
    layout.legend_below(
        figure,
        [Line2D([], [], marker="o", ms=3.6, lw=1.4, color=r.color, label=r.method) for r in methods.itertuples()],
    )
    return figure


def caption(results: Results) -> str:
    """How to read the ratios, and those of the CoLoRA methods in sentences."""
    frame = read(results)
    if frame.empty:
        return ""
    content = _json(results.directory / "cost.json", claim_costs.COMMAND)
    text = [_how(results, frame)]
    text += ["Hollow: peers on the same network and at the same places, which are no methods of the profile."]
    for label, methods in content.get("headline", {}).items():
        text += [_sentence(label, method, ratios) for method, ratios in methods.items()]
    for label, names in content.get("left_out", {}).items():
        text.append(f"Left out at {label}: " + ", ".join(f"{name} ({why})" for name, why in names.items()) + ".")
    return " ".join(text)


def growth_caption(results: Results) -> str:
    """How to read the sweeps, with the exponent of each line of the batch and the image sweep."""
    frame = read_growth(results)
    if frame.empty:
        return ""
    text = "One value is swept in a panel, the others being the profile's. Dashed: a method that has no rank."
    for sweep in ("batch", "image"):
        name = SWEEPS[sweep][0]
        slopes = []
        for method, own in frame[frame.sweep == sweep].groupby("method", sort=False):
            if own[name].nunique() > 1:
                time, memory = (np.polyfit(np.log(own[name]), np.log(own[v]), 1)[0] for v in ("step_ms", "peak_mib"))
                slopes.append(f"{method} {time:.2f} and {memory:.2f}")
        if slopes:
            text += f" By {SWEEPS[sweep][1].split(',')[0].lower()} to the power of (time and memory): "
            text += f"{'; '.join(slopes)}."
    return text


def _sentence(label: str, method: str, ratios: dict) -> str:
    """The ratios of a CoLoRA method to full fine-tuning, to its two-branch form and to peft's LoRA."""

    def ratio(name):
        low, high = (ratios.get(f"{name}_{end}", np.nan) for end in ("lo", "hi"))
        return f"{ratios[name]:.2f}" + ("" if pd.isna(low) else f" {interval(low, high)}")

    parts = []
    for name, words in (
        ("colora_step_ratio", "of a full fine-tuning step"),
        ("colora_peak_ratio", "of its peak memory"),
        ("colora_vs_two_branch", "of its own two-branch form's step"),
        ("colora_vs_two_branch_peak", "of that one's memory"),
        ("colora_vs_peft", "of a step of peft's LoRA"),
        ("colora_vs_peft_peak", "of that one's memory"),
    ):
        if name in ratios:
            parts.append(f"{ratio(name)} {words}")
    return f"At {label}, {method} takes " + ", ".join(parts) + "."


def _how(results: Results, frame: pd.DataFrame) -> str:
    """On what and how the readings were taken."""
    return (
        f"Measured in one process on {claim_costs.machine(results)}: all methods and peers of a setting take turns, "
        f"{_rounds(frame)} rounds, each in another order. Values are medians over rounds; ratios are taken within a "
        "round. Intervals are 95 % ones of the median from order statistics, rounds being taken as independent. They "
        "cover how rounds of one run differ, not what another run, or other methods taking turns, would change, which may "
        "be more."
    )


def _rounds(frame: pd.DataFrame) -> str:
    counts = sorted(set(frame.rounds.astype(int)))
    return " or ".join(map(str, counts))


def _heading(own: pd.DataFrame) -> str:
    """What the rows of a setting share."""
    first = own.iloc[0]
    backbone = f"{first.backbone}, " if own.backbone.nunique() == 1 else ""
    precisions = " or ".join(dict.fromkeys(own.precision))
    words = {claim_costs.compiled(row) for row in own.itertuples()}
    compiled = words.pop() if len(words) == 1 else ", some compiled"
    return f"{backbone}{first.image_size:.0f} px, batch {first.batch_size:.0f}, {precisions}{compiled}"


def _in_two_lines(words: str) -> str:
    """Words of more than 36 characters broken at the comma next to their middle."""
    commas = [place for place, c in enumerate(words) if c == ","]
    if len(words) <= 36 or not commas:
        return words
    place = min(commas, key=lambda place: abs(2 * place - len(words)))
    return f"{words[:place]},\n{words[place + 2 :]}"


def _with(value, low, high, form=lambda v: number(v, ".2f")) -> str:
    """A value with its interval behind it."""
    if pd.isna(value):
        return DASH
    return form(value) if pd.isna(low) else f"{form(value)} [{form(low)}, {form(high)}]"


TABLES = (side_by_side,)
FIGURES = (cost_ratios, cost_growth)
