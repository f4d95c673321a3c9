"""The paper beside ours: differences to full fine-tuning and to head-only for each placement, theirs and ours."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import estimates, listed, mean_sd, numbers, points, setting, span

GROUP, ORDER = "Result", 30
BASES = {"full": "full fine-tuning", "head_only": "head-only"}  # role of pairs.csv: words


def section(results: Results) -> Section | None:
    if results.paper.empty or (rows := differences(results)).empty:
        return None
    caption = (
        "Accuracy minus that of full fine-tuning, and of head-only, on the same network and data: dot and line, "
        "measured here with the unadjusted 95 % interval; diamond, the paper's table, its line the two standard "
        f"deviations together, for one run of each (how many there were is not stated). {comparability(results)}"
    )
    told = "; ".join(
        f"{r.method} against {r.base}: {points(r.difference, plus=True)} here, {points(r.paper, plus=True)} there"
        for r in rows.itertuples()
    )
    drawn = figure(rows, results.methods.ink)
    return Section(finding(rows), caption, f"In points, {told}.", drawn, [table(results), *memory(results)])


def counterparts(methods: pd.DataFrame, paper: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The paper's figures for these methods, a row a figure: paper.csv's columns, `method` being ours.

    A figure counts when the method has the same name (a backbone named in it aside) and the data set is the same, or
    OCTMNIST where the profile's own data is in no paper. The method's backbone is preferred. Where the paper has none
    of its figures, VGG16's are shown for CNN methods of a profile without VGG16, but not for ViTs, whose methods only
    share a name. A network trained from scratch stands beside the one of its name. Figures without an accuracy are
    left out.
    """
    paper = paper[paper.accuracy.notna()]
    paper = paper[paper.dataset == (dataset if dataset in set(paper.dataset) else "octmnist")]
    stand_in = None if "vgg16" in set(methods.backbone) else "vgg16"
    found = [_stated(paper, method, row, stand_in).assign(method=method) for method, row in methods.iterrows()]
    return pd.concat(found).reset_index(drop=True)


def _stated(paper: pd.DataFrame, method: str, row: pd.Series, stand_in: str | None) -> pd.DataFrame:
    """The figures of `paper` for one method; `stand_in`: the backbone whose figures another CNN may borrow."""
    bare = method.removeprefix(f"{row.backbone}-").removesuffix(f"-{row.backbone}")
    same = paper[paper.method == (method if method in set(paper.method) else bare)]
    own = same[same.backbone == row.backbone]
    if len(own) or row.group not in ("CNN", "ViT"):  # the other groups' networks have names of their own in the paper
        return own if len(own) else same
    return same[same.backbone == (stand_in if row.group == "CNN" else row.backbone)]


def differences(results: Results) -> pd.DataFrame:
    """A row a method and base ('full', 'head_only'): ours (difference, lo, hi), theirs (paper, paper_lo, paper_hi)."""
    paper = counterparts(results.methods, results.paper, results.dataset)
    paper = paper[paper.training_set == "full"].drop_duplicates("method").set_index("method")
    pairs = results.pairs[(results.pairs.data == "test") & (results.pairs.metric == "accuracy")]
    pairs = pairs[pairs.role.isin(list(BASES)) & pairs.difference.notna()].drop_duplicates(["method", "role"])
    pairs = pairs[~pairs.method.map(results.methods.family).isin(list(BASES))]
    rows = pairs.merge(paper, left_on="method", right_index=True)
    again = results.pairs[results.pairs.role == "again"]
    first = dict(zip(again.method, again.reference, strict=True))  # for which a second run stands
    base = rows.reference.map(lambda name: first.get(name, name))
    rows = rows.merge(paper, left_on=base, right_index=True, suffixes=("", "_base"))
    rows = rows[rows.backbone == rows.backbone_base].reset_index(drop=True)
    half, gain = (rows.accuracy_sd**2 + rows.accuracy_sd_base**2) ** 0.5, rows.accuracy - rows.accuracy_base
    return rows[["method", "role", "difference", "lo", "hi"]].rename(columns={"role": "base"}).assign(
        paper=gain, paper_lo=gain - half, paper_hi=gain + half
    )  # fmt: skip


def finding(rows: pd.DataFrame) -> str:
    """How many of the paper's gains over each base are found here: above zero with the whole interval."""
    parts = []
    for base, words in BASES.items():
        own = rows[(rows.base == base) & (rows.paper > 0)]
        if len(own):
            found, against = (own.lo > 0).sum(), (own.hi < 0).sum()
            text = f"of the paper's gains over {words} {found} of {len(own)} found here"
            parts.append(f"{text}, {against} below zero (unadjusted)" if against else text)
    text = "; ".join(parts) or "The paper states no gain for the methods measured here"
    return f"{text[0].upper()}{text[1:]}."


def figure(rows: pd.DataFrame, inks) -> Figure:
    """A panel a base, a row a method; rows as `differences` gives them."""
    ranked = rows.sort_values("difference", ascending=False)
    panels = {f"Minus {words}": ranked[ranked.base == base] for base, words in BASES.items() if base in set(rows.base)}
    names = {title: list(own.method) for title, own in panels.items()}
    figure, axes = drawing.stacked(names, inks, "Difference in accuracy, points")
    for axis, own in zip(axes, panels.values(), strict=True):
        axis.axvline(0, color=drawing.INK, lw=0.9, zorder=1)
        for place, row in enumerate(own.itertuples()):
            color = inks[row.method]
            axis.plot([100 * row.lo, 100 * row.hi], [place - 0.14] * 2, color=color, lw=2, zorder=2)
            axis.plot(100 * row.difference, place - 0.14, "o", ms=6.5, color=color, zorder=3)
            axis.plot([100 * row.paper_lo, 100 * row.paper_hi], [place + 0.2] * 2, color=drawing.QUIET, lw=1, zorder=2)
            axis.plot(100 * row.paper, place + 0.2, "D", ms=5, mfc="white", mec=drawing.QUIET, mew=1.2, zorder=3)
            drawing.beside(axis, place, f"{points(row.difference, plus=True)} ({points(row.paper, plus=True)})")
    drawing.ticks(axes[-1])
    theirs = {"marker": "D", "ms": 5, "lw": 1, "color": drawing.QUIET, "mfc": "white", "mew": 1.2}
    drawing.below(figure, [
        Line2D([], [], marker="o", ms=6.5, lw=2, color=drawing.INK, label="measured here"),
        Line2D([], [], label="the paper (in brackets)", **theirs),
    ])  # fmt: skip
    return figure


def table(results: Results) -> Table:
    """Measured accuracy beside every figure of the paper for a method of the same name."""
    paper = counterparts(results.methods, results.paper, results.dataset)
    ours = results.methods.reindex(paper.method).reset_index(drop=True)
    theirs = paper[["backbone", "dataset", "training_set", "accuracy", "accuracy_sd", "auc"]].add_prefix("paper_")
    raw = pd.DataFrame({
        "method": paper.method, "measured_backbone": ours.backbone, "measured_accuracy": ours.acc_mean,
        "measured_lo": ours.acc_lo, "measured_hi": ours.acc_hi, "measured_auc": ours.auc_mean,
    }).join(theirs).assign(source=paper.source)  # fmt: skip
    text = pd.DataFrame({
        "Method": raw.method, "Paper's setting": [_setting(row) for row in paper.itertuples()], "Source": raw.source,
        "Paper's accuracy": [mean_sd(m, s, 3) for m, s in zip(raw.paper_accuracy, raw.paper_accuracy_sd, strict=True)],
        "Measured": estimates(raw.measured_accuracy, raw.measured_lo, raw.measured_hi),
        "Paper's AUC": numbers(raw.paper_auc, ".3f"), "Measured AUC": numbers(raw.measured_auc, ".3f"),
    })  # fmt: skip
    note = comparability(results)
    if paper.source.str.contains("pointwise only").any():
        note += " The paper calls its 0.933 that of a pointwise-only update; by its 0.91M trained parameters it is a "
        note += "depthwise-only one (910,084 on VGG16, where pointwise-only has 2,499,332), so it stands beside that "
        note += "method."
    title = f"The paper's figures beside those measured here, with their 95 % interval (measured: {results.label})"
    return Table("beside_paper", title, note, raw, text, left=3)


def memory(results: Results) -> list[Table]:
    """Peak memory of training as measured, at every setting, beside the paper's figure for the same method and network;
    no table where none was measured. The paper's ratio is to its own full fine-tuning.
    """
    paper = results.paper.dropna(subset=["memory_gib"])
    ours = results.cost[results.cost.role.eq("method") & results.cost.peak_mib.notna()]
    rows = ours.merge(paper[["method", "backbone", "memory_gib", "source"]], on=["method", "backbone"])
    if rows.empty:
        return []
    full = paper[paper.method == "full"].set_index("backbone").memory_gib
    raw = rows[["method", "backbone", "image_size", "batch_size", "precision"]].assign(
        measured_gib=rows.peak_mib / 1024, measured_ratio=rows.peak_ratio, paper_gib=rows.memory_gib,
        paper_ratio=rows.memory_gib / rows.backbone.map(full), source=rows.source,
    )  # fmt: skip
    text = pd.DataFrame({
        "Method": raw.method, "Measured at": [setting(row) for row in rows.itertuples()],
        "Paper, GiB": numbers(raw.paper_gib, ".3f"), "Measured, GiB": numbers(raw.measured_gib, ".3f"),
        "Paper, × full": numbers(raw.paper_ratio, ".2f"), "Measured, × full": numbers(raw.measured_ratio, ".2f"),
    })  # fmt: skip
    note = (
        "The paper's figures are of OCTMNIST at 224 px, in Keras on an RTX 3090; batch size and precision are not "
        "stated with them. Measured: the most bytes in use at once through torch's allocator, on "
        f"{results.cost_machine}."
    )
    return [Table("beside_paper_memory", "Peak memory of training beside the paper's", note, raw, text, left=2)]


def comparability(results: Results) -> str:
    """What separates the measured figures from the paper's."""
    paper = counterparts(results.methods, results.paper, results.dataset)
    ours = results.methods.loc[paper.method].reset_index(drop=True)
    other = (ours.group == "CNN") & (ours.seeds > 0) & (ours.backbone != paper.backbone)
    parts = [] if results.dataset in set(results.paper.dataset) else ["on other data than OCTMNIST"]
    if other.any():
        parts.append(f"with {listed(sorted(set(ours.backbone[other])))} where the paper mostly has vgg16")
    size, theirs = results.card.get("image_size"), paper.image_size.dropna()
    if size and len(theirs) and size not in set(theirs):
        parts.append(f"at {size} px where the paper has {span(theirs)}")
    if not parts:
        return (
            "Same data set, image size and backbone; training details differ where the settings in the run records do."
        )
    return f"Ours are {listed(parts)}: differences and the order of methods may be compared, accuracies may not."


def _setting(figure) -> str:
    """A paper's backbone, data set, image size and training set, as far as they are stated."""
    size = "" if pd.isna(figure.image_size) else f" at {figure.image_size:.0f} px"
    images = "" if pd.isna(figure.training_set) else f", {figure.training_set}"
    return f"{figure.backbone}, {figure.dataset}{size}{images}"
