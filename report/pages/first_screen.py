"""What the first screen says: the result in a sentence, three figures at most, declared contrasts, what was not run.

Plain values; the pages escape them. All are computed from the results of a profile, `not_run` from its neighbours too.
"""

from dataclasses import dataclass

import pandas as pd

from report.claims import Verdict, method_of_claims, verdicts
from report.claims.tests import CONTRADICTED, NOT_TESTED, SUPPORTED, WORDS
from report.reading import Results, beside, machines, ranked
from report.text import listed, percent, points, setting, small, span

PAPER = "https://arxiv.org/abs/2505.18315"


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """sentence: the result. again: what another rate or machine changes, "" where none was run. when, machine: of the
    runs. not_run: what the results do not hold, each in a few words.
    """

    sentence: str
    again: str
    tiles: list[Tile]
    not_run: list[str]
    when: str
    machine: str


def answer(results: Results, found: list[Verdict]) -> Answer:
    """The first screen of a profile; `found`: the verdicts on the paper's claims, none where it is not about them."""
    dates = results.complete.date.dropna()
    ends = [pd.Timestamp(day).strftime("%-d %B %Y") for day in (dates.min(), dates.max())] if len(dates) else []
    return Answer(
        sentence=sentence(results), again=again(results), tiles=tiles(results, found), not_run=not_run(results),
        when=" to ".join(dict.fromkeys(ends)) or "no date recorded", machine=machines(results.complete),
    )  # fmt: skip


def subject(results: Results) -> str:
    """The method that the first screen is about: the declared one, as it is called in its contrasts."""
    rows = results.declared_contrasts
    return str(rows.method.iloc[0]) if len(rows) else method_of_claims()


def sentence(results: Results) -> str:
    """The result in one sentence, the method and the best one named, every number computed."""
    methods, method = results.methods[results.methods.seeds > 0], subject(results)
    if methods.empty:
        return "No method has a result yet."
    runs = results.complete
    if method in methods.index:  # beside others trained on as many labels
        methods = methods[methods.share == methods.share[method]]
        runs = runs[runs.method == method]
    told = ranked(methods)
    best = told.acc_mean.idxmax()
    where = f"{span(runs.n_train)} {images(results)}{design(results)}"
    if method not in methods.index:
        place = f"is most accurate of {_among(told, methods)} with" if len(told) > 1 else "has"
        return f"Trained on {where}, {best} {place} {_percent(methods, best)} of unseen images right."
    if methods.share[method] < 1:
        where += f", {percent(methods.share[method])} of the labels"
    start = (
        f"Trained on {where}, CoLoRA ({method}: small branches on a frozen {methods.backbone[method]}) is right on "
        f"{_percent(methods, method)} of unseen images"
    )
    last = ""
    if len(told) > 1:
        last = f"; the highest mean of {_among(told, methods)} is that of {best}, {_percent(methods, best)}"
        if best == method:
            last = f"; that is the highest mean of {_among(told, methods)}"
    return f"{start}{_against_full(results, methods)}{last}."


def _among(told: pd.DataFrame, methods: pd.DataFrame) -> str:
    """Of how many methods the best is told, those left out that lack a run."""
    left = bool((~methods.second).sum() > len(told))
    return f"{'the ' * left}{len(told)} methods{' that have all their runs' * left}"


def _against_full(results: Results, methods: pd.DataFrame) -> str:
    """', 1.2 points more than full fine-tuning (0.3 to 2.1), while it trains 16 % as many parameters'."""
    rows = results.declared_contrasts
    rows = rows[(rows.comparator == "full") & rows.difference.notna()]
    if rows.empty or rows.higher.iloc[0] == NOT_TESTED:
        return ""
    row = rows.iloc[0]
    size, lo, hi = _points(row)
    interval = "no interval" if pd.isna(row.lo) else f"interval {lo} to {hi}"
    interval += f"; {unlike}" if (unlike := results.unlike(row.method, row.against)) else ""
    if row.higher not in (SUPPORTED, CONTRADICTED) and row.lo * row.hi > 0:
        interval += "; the swap test of patients does not agree"
    told = f"not shown to differ from full fine-tuning ({size} points, {interval})"
    if row.noninferior == SUPPORTED and row.difference < 0:
        told += f", but {_near(row)}"
    if row.higher in (SUPPORTED, CONTRADICTED):
        more = "more" if row.higher == SUPPORTED else "fewer"
        told = f"{points(abs(row.difference))} points {more} than full fine-tuning ({interval})"
    share = methods.trainable.get(row.method, float("nan")) / methods.trainable.get(row.against, float("nan"))
    return f", {told}" + ("" if pd.isna(share) else f", training {100 * share:.0f} % as many parameters")


def _elsewhere(results: Results) -> list[str]:
    """'On other-patients: -2.2 points of balanced accuracy from full fine-tuning (-4.9 to +0.5; inconclusive).'"""
    rows = results.contrasts.query("data != 'test' and metric == 'balanced_accuracy' and comparator == 'full'")
    rows = rows[rows.difference.notna() & (rows.method == subject(results)) & rows.lo.notna()]
    words = {SUPPORTED: "shown to be better", CONTRADICTED: "shown to be worse"}
    return [
        "On {}: {} points of balanced accuracy from full fine-tuning ({} to {}; {}).".format(
            row.data, *_points(row), words.get(row.higher, row.higher)
        )
        for row in rows.itertuples()
    ]


def _near(row) -> str:
    return f"shown to be less than {100 * row.margin:g} points behind"


def again(results: Results) -> str:
    """What comes of the method at another learning rate than its own, or at the same on another machine, where a method
    that differs by a stated rate alone was run: exploratory, unadjusted.
    """
    own = results.pairs.query("data == 'test' and metric == 'accuracy'").dropna(subset="lo")
    method, methods, told = subject(results), results.methods, []
    made = results.machines
    for row in own[(own.role == "again") & (own.reference == method)].itertuples():
        new, old = methods.lr[row.method], methods.lr[method]
        here, there = made[row.method], made[method]
        how = []
        if new != old:
            chosen = "tuning chose" if method in set(results.tuning.method) else "it states"
            how.append(f"at {new:g} in place of the {old:g} that {chosen}")
        if here != there:
            how.append(f"on {here} in place of {there}")
        how = f"trained {' and '.join(how) or 'a second time'}"
        text = f"{how}, {method} is right on {_percent(methods, row.method)} ({_gap(row)}; {row.runs:.0f} runs)"
        for other in own[(own.method == row.method) & (own.role == "full")].itertuples():
            text += f", which is {_gap(other)} from {other.reference}"
            where = made[other.reference]
            text += f" on {where}" if where != here else " on the same machine" * (here != there)
        told.append(text)
    return f"{'; '.join(told)}; exploratory, unadjusted" if told else ""


def _points(row) -> list[str]:
    """A row's difference, lo and hi in points with their signs."""
    return [points(value, plus=True) for value in (row.difference, row.lo, row.hi)]


def _gap(row) -> str:
    """'+3.0 points (+0.6 to +5.4)'."""
    return "{} points ({} to {})".format(*_points(row))


def tiles(results: Results, found: list[Verdict]) -> list[Tile]:
    """At most three figures that the sentence has no room for."""
    tiles, methods = [], results.methods[results.methods.seeds > 0]
    if found:
        words = [verdict.verdict for verdict in found]
        rest = ", ".join(f"{words.count(word)} {word}" for word in WORDS[1:])
        tiles.append(Tile("Claims of the paper supported", f"{words.count(SUPPORTED)} of {len(words)}", rest))
    method = subject(results)
    shown = method if method in methods.index else methods.acc_mean.idxmax() if len(methods) else None
    if shown:
        row = methods.loc[shown]
        share = small(row.trainable / row.total)
        tiles.append(Tile(f"Trained by {shown}", share, f"{row.trainable:,.0f} of {row.total:,.0f} parameters"))
    cost = results.cost[(results.cost.method == method_of_claims()) & results.cost.step_ratio.notna()]
    if len(cost):
        own = cost.iloc[0]
        where = f"{setting(own)}; {results.cost_machine}"
        detail = f"of full fine-tuning's; peak memory {100 * own.peak_ratio:.0f} %; {where}"
        tiles.append(Tile("Time of a training step", f"{100 * own.step_ratio:.0f} %", detail))
    elif shown:
        tiles.append(Tile(f"AUC of {shown}", f"{row.auc_mean:.3f}", "macro, one class against the rest"))
    return tiles


def images(results: Results) -> str:
    """What the images are, for a stranger."""
    if results.source == "phantom":
        return "synthetic scans, which say nothing about real ones"
    if results.source in ("medmnist", "torchvision"):
        return f"{results.dataset.upper()} images of {results.card.get('image_size', '?')} px"
    return "OCT scans" if len(results.paper) else "images"


def design(results: Results) -> str:
    """' (5 folds x 3 repeats)', where the test images are folds."""
    rows = results.declared_contrasts
    if rows.empty or not rows.folds.max() > 1:
        return ""
    repeats = int(rows.repeats.max())
    return f" ({int(rows.folds.max())} folds" + (f" × {repeats} repeats)" if repeats > 1 else ")")


def not_run(results: Results) -> list[str]:
    """What the results do not hold: the paper's own setting, its other data sets, holes, declared comparators."""
    found = []
    if len(results.paper):
        run = beside(results)
        on_gpus = [own for own in run if own.dataset == "octmnist" and own.complete.gpu.notna().any()]
        if not any(own.card["settings"].get("image_size") == 224 for own in on_gpus):
            found.append("OCTMNIST at 224 px on a GPU, which is the paper's setting")
        there = {own.dataset for own in run}
        others = [name for name in dict.fromkeys(results.paper.dataset) if name != "octmnist" and name not in there]
        if others:
            found.append(f"the paper's other data sets ({', '.join(others)})")
    rows = results.declared_contrasts
    rows = rows[rows.method.isin(results.methods.index)]  # else the profile is about something else
    absent = rows[(rows.higher == NOT_TESTED) & ~rows.against.isin(results.complete.method)]
    if len(absent):
        found.append(f"declared comparators without a run: {', '.join(absent.comparator)}")
    if len(results.holes):
        found.append(f"{len(results.holes)} of {len(results.runs)} runs of this profile")
    return found


def headline(results: Results, *others: Results) -> str:
    """ "What came out" of README: five lines of Markdown and the sentence of each other profile, all from results/."""
    rows, found = results.declared_contrasts, verdicts(results) if len(results.paper) else []
    rows = rows[rows.method.isin(results.methods.index)]  # else the profile is about something else
    lines = [sentence(results)]
    told = []
    for word, text in ((SUPPORTED, "More accurate than"), (CONTRADICTED, "less accurate than")):
        own = rows[rows.higher == word]
        named = ["{} ({} points, {} to {})".format(results.called(row), *_points(row)) for row in own.itertuples()]
        told += [f"{text} {', '.join(named)}"] if named else []
    if told:
        told = "; ".join(told)
        lines.append(f"{told[0].upper()}{told[1:]}.")
    open_ = rows[~rows.higher.isin([SUPPORTED, CONTRADICTED])]
    near = open_[open_.noninferior == SUPPORTED]
    told = []
    if len(near):
        named = [f"{results.called(row)} ({points(row.difference, plus=True)} points)" for row in near.itertuples()]
        told.append(f"Not told apart from {listed(named)}, but {_near(near.iloc[0])}{' each' * (len(near) > 1)}.")
    if named := [f"{results.called(row)} ({row.higher})" for row in open_.drop(near.index).itertuples()]:
        told.append(f"Not decided on these images: {', '.join(named)}.")
    told += _elsewhere(results)
    if told:
        lines.append(" ".join(told))
    if told := again(results):
        lines.append(f"**The same method again:** {told}.")
    if shown := tiles(results, found):
        lines.append(" ".join(f"{tile.label}: {tile.value} ({tile.detail})." for tile in shown))
    for own in others:
        size = own.card.get("settings", {}).get("image_size")
        px = f", {size} px" if size else ""
        lines.append(f"[{own.profile}](report/{own.profile}/README.md){px}: {sentence(own)}")
    if missing := not_run(results):
        lines.append(f"**Not run:** {'; '.join(missing)}.")
    return "\n".join(f"- {line}" for line in lines)


def _percent(methods: pd.DataFrame, method: str) -> str:
    """The accuracy as tables have it, 0.9245 as 92.4 and 0.924, in per cent."""
    return f"{100 * round(methods.acc_mean[method], 3):.1f} %"
