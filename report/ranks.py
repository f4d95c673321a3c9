"""Mean ranks with Nemenyi's critical difference: the diagram of Demsar 2006 (JMLR 7:1, figure 1), and its words."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from report import layout, style
from report.comparisons import p_text
from report.results import Results

ROW, BAR = 0.17, 0.075  # inches: a name's row, a bar's row


def cliques(ranks: np.ndarray, distance: float) -> list[tuple[int, int]]:
    """Longest runs of ascending ranks that span at most `distance`: (first, last), runs of one method left out."""
    runs = [(i, int(np.searchsorted(ranks, rank + distance + 1e-9, side="right")) - 1) for i, rank in enumerate(ranks)]
    return [run for place, run in enumerate(runs) if run[1] > run[0] and (not place or run[1] > runs[place - 1][1])]


def critical_difference(results: Results) -> plt.Figure | None:
    """Methods on a line of mean ranks, best at the left; a bar joins those that Nemenyi's test does not tell apart."""
    ranked = _ranked(results)
    if ranked is None:
        return None
    ranks, n = ranked.mean_rank.to_numpy(float), len(ranked)
    cd = float(ranked.cd.iloc[0])
    bars = cliques(ranks, cd)
    half = -(-n // 2)
    # Inches from the top: title, ruler, axis; then bars, names, margin.
    axis_at, names_at = 0.98, 0.98 + 0.16 + BAR * len(bars) + 0.12
    height = names_at + ROW * half + 0.1
    figure = plt.figure(figsize=(style.WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, style.WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    shown = [f"{results.methods.shown[method]}  {rank:.2f}" for method, rank in zip(ranked.method, ranks, strict=True)]
    margin = min(2.6, 0.35 + 0.062 * max(map(len, shown)))
    left, right = margin, style.WIDTH - margin

    def x(rank):
        return left + (rank - 1) / (n - 1) * (right - left)

    dark = "#666666"
    axes.plot([x(1), x(n)], [axis_at] * 2, color=dark, lw=0.8)
    step = max(1, round((n - 1) / 10))
    for tick in sorted({*range(1, n, step), n} - ({n - 1} if step > 2 else set())):
        axes.plot([x(tick)] * 2, [axis_at - 0.05, axis_at], color=dark, lw=0.8)
        axes.text(x(tick), axis_at - 0.07, f"{tick}", ha="center", va="bottom", fontsize=8, color="#444444")
    reach = min(cd, n - 1)
    axes.plot([x(1), x(1 + reach)], [0.66] * 2, color=style.INK, lw=1.2)
    for end in [1] + [1 + reach] * (cd <= n - 1):
        axes.plot([x(end)] * 2, [0.62, 0.7], color=style.INK, lw=1.2)
    wide = "" if cd <= n - 1 else ", more than all ranks"
    axes.text(x(1), 0.59, f"critical difference {cd:.2f}{wide}", va="bottom", fontsize=8)
    for place, (first, last) in enumerate(bars):
        level = axis_at + 0.12 + BAR * place
        ends = [x(ranks[first]) - 0.04, x(ranks[last]) + 0.04]
        axes.plot(ends, [level] * 2, color=style.INK, lw=2.6, solid_capstyle="round", zorder=4)
    for place, (method, rank, text) in enumerate(zip(ranked.method, ranks, shown, strict=True)):
        row = results.methods.loc[method]
        ours = place < half
        # The best has the top row at the left, the worst the top row at the right: lines do not cross.
        level = names_at + ROW * (place if ours else n - 1 - place) + ROW / 2
        end = left - 0.12 if ours else right + 0.12
        axes.plot([x(rank), x(rank), end], [axis_at, level, level], color=row.color, lw=0.8, zorder=2)
        name = text if ours else "  ".join(reversed(text.rsplit("  ", 1)))
        axes.text(
            end + (-0.05 if ours else 0.05), level, name, ha="right" if ours else "left", va="center", fontsize=7.5,
            color=row.ink,
        )  # fmt: skip
    layout.write_title(figure, f"Mean rank of test accuracy over seeds (1 is best)\n{results.label}")
    return figure


def caption(results: Results) -> str:
    """How to read the diagram, with Friedman's test and the methods that have no rank."""
    ranked = _ranked(results)
    if ranked is None:
        return ""
    row = ranked.iloc[0]
    text = (
        "Methods under one bar are not told apart by Nemenyi's test at 5 %: their mean ranks differ by less than the "
        f"critical difference, {row.cd:.2f} for {row.methods:.0f} methods and {row.seeds:.0f} seeds. "
    )
    if pd.notna(row.friedman_p):
        p = p_text(row.friedman_p)
        text += (
            f"Friedman's test of equal ranks: chi-squared {row.friedman_chi2:.1f}, "
            f"p {p if p.startswith('<') else f'= {p}'}. "
        )
    text += "Ranks see the order alone, seed by seed"
    text += "." if results.folds else "; that all seeds are tested on the same images is not counted."
    without = results.ranks.method[results.ranks.mean_rank.isna()]
    if len(without):
        text += f" No rank, since a seed is missing: {', '.join(without)}."
    return text


def _ranked(results: Results) -> pd.DataFrame | None:
    """The rows of ranks.csv that have a rank, best first; None where there is no critical difference to show."""
    ranked = results.ranks.dropna(subset=["mean_rank", "cd"])
    if len(ranked) < 2:
        return None
    return ranked.sort_values("mean_rank", kind="stable")
