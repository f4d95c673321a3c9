"""CoLoRA beside the methods of other families that train about as many parameters of the same network."""

import pandas as pd

from report.reading import Results
from report.sections import Section, Table, accuracy
from report.text import DASH, estimates, gap, numbers, percent, points, scaled

GROUP, ORDER = "Result", 50
NEAR = 0.25  # of the CoLoRA method's trained parameters


def section(results: Results) -> Section | None:
    methods = results.ranked
    groups = budgets(methods, results.declared[:1])
    if not groups:
        return None
    shown = list(dict.fromkeys(name for rows in groups.values() for name in rows))
    titles = {f"As many as {name}: {scaled(methods.trainable[name])}": rows for name, rows in groups.items()}
    caption = (
        f"Methods whose trained parameters, head included, are within {percent(NEAR)} of a CoLoRA method's on the same "
        f"network. {results.label}; exploratory: learning rates are tuned, and no other option is."
    )
    told = "; ".join(
        f"{panel}: {', '.join(f'{name} {methods.acc_mean[name]:.3f}' for name in rows)}"
        for panel, rows in titles.items()
    )
    drawn = accuracy.figure(methods.loc[shown], results.complete, titles)
    rows = paired(methods, groups, results)
    if rows.difference.notna().any():
        caption += " Means may be over other seeds and of other machines than their neighbour's: the table pairs them."
    return Section(finding(rows), caption, f"Mean accuracies. {told}.", drawn, [table(rows, results)])


def budgets(methods: pd.DataFrame, declared: list[str]) -> dict[str, list[str]]:
    """By CoLoRA method, it and all that train about as much of its network, best first.

    A group has a method of another family; a CoLoRA method in an earlier group, the declared one's being the first, has
    none of its own.
    """
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    family = methods.family == "colora"
    for name in dict.fromkeys([*declared, *methods.index[family]]):
        if name in seen or name not in methods.index or not family[name]:
            continue
        near = (methods.trainable / methods.trainable[name] - 1).abs() <= NEAR
        rows = methods[near & (methods.backbone == methods.backbone[name])]
        seen |= set(rows.index[rows.family == "colora"])
        if (rows.family != "colora").any():
            found[name] = list(rows.sort_values("acc_mean", ascending=False).index)
    return found


def paired(methods: pd.DataFrame, groups: dict[str, list[str]], results: Results) -> pd.DataFrame:
    """A row a method and budget: trainable, acc_mean, acc_lo, acc_hi and lr; and the difference to the declared CoLoRA
    method (reference, difference, lo, hi), paired by run and image.
    """
    pairs = results.pairs.query("data == 'test' and metric == 'accuracy' and role == 'declared'")
    own = pairs.drop_duplicates("method").set_index("method")[["reference", "difference", "lo", "hi"]]
    raw = pd.Series(groups, name="method").explode().rename_axis("budget").reset_index()
    return raw.join(methods[["trainable", "acc_mean", "acc_lo", "acc_hi", "lr"]], on="method").join(own, on="method")


def finding(rows: pd.DataFrame) -> str:
    """Who is the most accurate of each group, and how far from the CoLoRA method that names it, on the same seeds where
    they were paired.
    """
    parts = []
    for name, own in rows.groupby("budget", sort=False):
        best, first = own.iloc[0], own.set_index("method").loc[name]
        text = f"{scaled(first.trainable)} {best.method}, {best.acc_mean:.3f}"
        if best.method != name:
            beside = f"{name} {first.acc_mean:.3f}"
            if pd.notna(best.difference) and name == rows.budget.iloc[0]:  # the declared method's
                beside = f"{points(best.difference, plus=True)} points from {best.reference} on the same seeds"
            text += f" ({beside})"
        parts.append(text)
    return f"Most accurate with about so many trained parameters: with {'; with '.join(parts)}."


def table(raw: pd.DataFrame, results: Results) -> Table:
    """`paired` as a table."""
    text = pd.DataFrame({
        "Budget of": raw.budget, "Method": raw.method, "Trained": numbers(raw.trainable, ",.0f"),
        "Accuracy": estimates(raw.acc_mean, raw.acc_lo, raw.acc_hi),
        "Minus the declared": [DASH if pd.isna(row.lo) else gap(row) for row in raw.itertuples()],
        "Which is": [DASH if pd.isna(name) else name for name in raw.reference],
    })  # fmt: skip
    name = results.declared[0] if results.declared else "none here"
    note = (
        f"Difference: accuracy minus that of the declared CoLoRA method ({name}), or of its second run where "
        "that was on the method's own machine, paired by run, with an unadjusted 95 % interval."
    )
    return Table("budgets", f"Equal budgets: {results.label}", note, raw, text, left=2)
