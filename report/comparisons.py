"""Methods against their references: the table, and the words for what a comparison shows; verdicts are computed here."""

import numpy as np
import pandas as pd

from report.results import Results
from report.tables import DASH, Table, interval, number, signed

HEADS = {"full": "full fine-tuning", "head_only": "head-only"}
GROUPS = ("ViT", "state space", "KAN")  # of pipelines.comparisons
PEERS = ("bitfit", "adapters", "conv_lora")
WORDS = ("higher", "higher, within the margin", "equivalent", "lower, within the margin", "lower", "undecided")
ALPHA = 0.05  # of Holm's p; the intervals are 95 % ones


def verdict(row) -> str:
    """What one row of comparisons.csv shows: 'higher', 'lower', 'equivalent', 'undecided', or a dash for a hole.

    A difference is shown when Holm's p is below 5 % both over new seeds and images and for the trained networks alone:
    a few seeds that happen to agree would otherwise show what their images do not. Equivalence is shown by the two
    one-sided tests at the margin, Holm-corrected too. Both may hold. One seed decides nothing about a method.
    """
    if pd.isna(row.difference):
        return DASH
    if row.seeds < 2 or pd.isna(row.p_holm):
        return "undecided"
    shown = "higher" if row.difference > 0 else "lower"
    equivalent = str(row.equivalent) == "True"
    if larger_p(row) < ALPHA:
        return f"{shown}, within the margin" if equivalent else shown
    return "equivalent" if equivalent else "undecided"


def larger_p(row) -> float:
    """Holm's p of a claim that needs both tests: the larger of the two (an intersection-union test, Berger 1982)."""
    return max(row.p_holm, row.p_swap_holm)


def p_text(value) -> str:
    """A p value: three decimals, '<0.001' below them."""
    return DASH if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def seeds_text(value) -> str:
    """How many seeds, the sign of infinity where no number is enough."""
    return DASH if pd.isna(value) else "\N{INFINITY}" if np.isinf(value) else f"{value:,.0f}"


def points(margin: float, *, short: bool = False) -> str:
    """A margin of accuracy in words: '1 percentage point', '0.5 percentage points'; in short '1 pp'."""
    if pd.isna(margin):
        return "the margin"
    if short:
        return f"{100 * margin:g} pp"
    return f"{100 * margin:g} percentage point{'s' * int(round(100 * margin, 9) != 1)}"


def comparisons(results: Results) -> Table:
    """Paired accuracy differences from full fine-tuning and from transfer, with what they show."""
    raw = results.comparisons
    order = [
        row
        for family in (*HEADS, *GROUPS, *PEERS)
        for method in results.methods.index
        for row in raw[(raw.against == family) & (raw.method == method)].itertuples()
    ]
    margin = raw.margin.max()
    text = pd.DataFrame(
        {
            "Method": [row.method for row in order],
            "Minus": [row.reference for row in order],
            "Difference": [DASH if pd.isna(row.difference) else signed(row.difference) for row in order],
            "95 % interval": [interval(row.lo, row.hi, plus=True) for row in order],
            "Holm's p": [p_text(larger_p(row)) for row in order],
            "McNemar": [
                DASH if pd.isna(row.mcnemar_seeds) else f"{row.mcnemar_seeds:.0f}/{row.seeds}" for row in order
            ],
            "Better": [number(row.prob_improvement, ".2f") for row in order],
            "Verdict": [verdict(row) for row in order],
            f"Seeds for {points(margin, short=True)}": [seeds_text(row.seeds_needed) for row in order],
        }
    )
    note = (
        f"Paired by seed and test image, against the reference method on the same backbone{_same_share(results)}. The "
        f"interval is for new seeds and new {unit(results)}s, one comparison at a time. Holm's p is of no difference, "
        "corrected for all comparisons with the same kind of reference: the larger one of the t test that the interval "
        f"belongs to and of a permutation test that swaps the methods' results {unit(results)} by {unit(results)}, the "
        "trained networks as they are. McNemar: seeds whose own exact test has p below 0.05, uncorrected, images "
        "counted one by one. Better: estimated probability that one run of the method beats the same seed of the "
        "reference on a new test set of this size. Verdict: higher or lower where Holm's p is below 0.05; equivalent "
        f"where two one-sided tests, Holm-corrected, put the difference within {points(margin)}; else undecided. Last "
        f"column: seeds for a true difference of {points(margin)} to be found with 80 % power on these test sets, by "
        "the spread measured, which few seeds tell poorly"
    )
    endless = (raw.seeds_needed == np.inf).any()
    note += "; \N{INFINITY}: no number of seeds, the test images are too few." if endless else "."
    note += _against_groups(results) + _against_peers(results)
    return Table(
        "comparisons",
        f"Difference in test accuracy: {results.label}",
        f"{note}{_beyond_backbones(results)}",
        raw,
        text,
        left=2,
    )


def _same_share(results: Results) -> str:
    return "" if results.labels.empty else " and the same share of the labels"


def unit(results: Results) -> str:
    """What was drawn to make a test set, as far as the results know: 'patient' or 'image'."""
    return "patient" if results.patients else "image"


def _against_groups(results: Results) -> str:
    """A sentence on the comparisons of a CoLoRA method with other groups of networks, where there are any."""
    rows = results.comparisons[results.comparisons.against.isin(GROUPS)]
    if rows.empty:
        return ""
    others = ", ".join(f"{row.reference} for {row.against}" for row in rows.itertuples())
    return (
        f" Then {rows.method.iloc[0]}, the CoLoRA method of highest validation accuracy on its backbone, is set against the "
        f"method of highest validation accuracy of each other group ({others}): Holm's correction is over these alone, "
        "and the networks and their weights differ as well as the method."
    )


def _against_peers(results: Results) -> str:
    """A sentence on the comparisons of a CoLoRA method with other parameter-efficient methods, where there are any."""
    rows = results.comparisons[results.comparisons.against.isin(PEERS)]
    if rows.empty:
        return ""
    return (
        f" The last rows set {rows.method.iloc[0]} against the other parameter-efficient methods on its backbone, each by "
        "its method of highest validation accuracy, with Holm's correction over these alone."
    )


def _beyond_backbones(results: Results) -> str:
    """Sentences on the methods whose backbone has no reference method: those compared across backbones, and the others."""
    pairs, backbone = results.comparisons, results.methods.backbone
    pairs = pairs[pairs.against.isin(HEADS)]
    far = pairs[(pairs.method.map(backbone) != pairs.reference.map(backbone)).to_numpy(bool)]
    text = ""
    if len(far):
        others = dict.fromkeys(f"{name} ({backbone[name]})" for name in far.reference)
        text += (
            f" From scratch and with no such method on their backbone, {', '.join(dict.fromkeys(far.method))} are set "
            f"against {' and '.join(others)}: there the network and its weights differ as well as the method."
        )
    alone = [method for method in results.methods.index if method not in set(pairs.method) | set(pairs.reference)]
    if alone and len(pairs):
        text += f" Without a reference method on the same backbone: {', '.join(alone)}."
    return text


def sentence(pair) -> str:
    """One comparison in words, from a row of comparisons.csv that has a difference."""
    shown, margin = verdict(pair), points(pair.margin)
    words = {
        "equivalent": f"equivalent, within {margin}",
        "higher, within the margin": f"higher, though by less than {margin}",
        "lower, within the margin": f"lower, though by less than {margin}",
        "undecided": f"undecided, neither a difference nor equivalence within {margin} is shown",
    }.get(shown, shown)
    p = "" if pd.isna(larger_p(pair)) else f", Holm's p {p_text(larger_p(pair))}"
    return (
        f"Against `{pair.reference}` the difference is {signed(pair.difference)} "
        f"{interval(pair.lo, pair.hi, plus=True)}{p}: {words}."
    )


def tally(results: Results) -> list[str]:
    """How many methods are shown higher, lower, equivalent or undecided against each kind of reference, in sentences."""
    sentences = []
    on = "" if results.labels.empty else " on the same share of the labels"
    for family, name in HEADS.items():
        rows = results.comparisons[results.comparisons.against == family]
        found = pd.Series([verdict(row) for row in rows.itertuples()], dtype=str)
        found = found[found != DASH]
        if len(found):
            counts = found.value_counts()
            told = ", ".join(f"{counts[word]} {word}" for word in WORDS if word in counts)
            sentences.append(f"Test accuracy against {name}{on}, {len(found)} method{'s' * (len(found) != 1)}: {told}.")
    return sentences
