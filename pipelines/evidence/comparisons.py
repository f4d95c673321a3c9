"""Methods against their references, and all methods by rank: the rows of comparisons.csv, mcnemar.csv and ranks.csv."""

import re

import numpy as np

from pipelines.evidence import stats
from pipelines.profile import Params
from pipelines.runs.reading import SummaryError

REFERENCES = ("full", "head_only")
GROUPS = (
    "ViT",
    "state space",
    "KAN",
)  # other kinds of network, whose best method the best CoLoRA method is set against
PEERS = ("bitfit", "adapters", "conv_lora")  # other parameter-efficient methods for CNNs, likewise, on its backbone
COLUMNS = (
    "method", "against", "reference", "difference", "lo", "hi", "seeds", "test_images", "p", "p_holm", "p_swap",
    "p_swap_holm", "prob_improvement", "margin", "tost_p", "tost_p_holm", "equivalent", "seeds_needed", "mcnemar_seeds",
    "auc_difference", "auc_lo", "auc_hi", "auc_p", "auc_p_holm",
)  # fmt: skip
MCNEMAR_COLUMNS = ("method", "against", "reference", "seed", "test_images", "only_method", "only_reference", "p")
RANK_COLUMNS = ("method", "mean_rank", "seeds", "methods", "cd", "friedman_chi2", "friedman_p")


def measure(runs: dict, n_units: int) -> None:
    """Give every run "figures": by metric its value and the influence of each unit, (U,). Needs `reading.add_units`."""
    for run in runs.values():
        test = run["labels"], run["probabilities"]
        run["figures"] = {name: stats.jackknife(test, name, run["units"], n_units) for name in stats.METRICS}


def estimate(runs: list[dict], metric: str, minus: list[dict] | None = None) -> stats.Estimate:
    """The mean of a metric over runs of different seeds, or of its difference from the runs `minus`, pair by pair."""
    values, influence = (np.array(part) for part in zip(*(run["figures"][metric] for run in runs), strict=True))
    if minus is not None:
        theirs = [run["figures"][metric] for run in minus]
        values, influence = values - [value for value, _ in theirs], influence - [own for _, own in theirs]
    grid = 1 / min(len(run["labels"]) for run in runs) if metric == "accuracy" else 0.0
    units = len(np.unique(np.concatenate([run["units"] for run in runs])))
    return stats.estimate(values, influence, units, grid=grid)


def compare(params: Params, by_method: dict[str, list[dict]]) -> tuple[list[dict], list[dict]]:
    """Each method's paired differences from its references (see `references`), then those of the best CoLoRA method from the
    best of each group and of each peer method (see `rivals`): rows of comparisons.csv and mcnemar.csv.

    Holm's correction is over all methods against one family of references: the comparisons that a reader sees together.
    The comparisons with other groups, three at most, are a family of their own, and so are those with peers: each
    answers one question, and the other families' p do not hang on whether a profile has a ViT.

    Raises:
        SummaryError: the two methods saw different test images under one seed.
    """
    rows, mcnemar = [], []
    # What the runs say, where there are any: networks trained from scratch have a backbone of their own there.
    settings = {method: own[0]["settings"] if own else params.settings(method) for method, own in by_method.items()}
    asked = [(method, *pair) for method in by_method for pair in references(method, settings).items()]
    for method, family, reference in asked + rivals(by_method, settings):
        pairs = paired(by_method, method, reference)
        row = {"method": method, "against": family, "reference": reference, "seeds": len(pairs)}
        images = [a["indices"] for a, _ in pairs]
        row["test_images"] = len(np.unique(np.concatenate(images))) if pairs else 0
        if pairs:
            row |= _difference([a for a, _ in pairs], [b for _, b in pairs], params.evidence.margin)
        for a, b in pairs:
            only_method, only_reference, p = stats.mcnemar(_correct(a), _correct(b))
            found = (method, family, reference, a["seed"], len(a["labels"]), only_method, only_reference, p)
            mcnemar.append(dict(zip(MCNEMAR_COLUMNS, found, strict=True)))
            # How many seeds' own tests show a difference, whichever way.
            row["mcnemar_seeds"] = row.get("mcnemar_seeds", 0) + (p < 1 - stats.LEVEL)
        rows.append(row)
    for families in (*((name,) for name in REFERENCES), GROUPS, PEERS):
        together = [row for row in rows if row["against"] in families and "p" in row]
        for name in ("p", "p_swap", "tost_p", "auc_p"):
            for row, adjusted in zip(together, stats.holm([row[name] for row in together]), strict=True):
                row[f"{name}_holm"] = adjusted
        for row in together:
            row["equivalent"] = bool(row["tost_p_holm"] < 1 - stats.LEVEL)
    return rows, mcnemar


def paired(by_method: dict[str, list[dict]], method: str, reference: str) -> list[tuple[dict, dict]]:
    """The runs of two methods, seed by seed, where both have one.

    Raises:
        SummaryError: they saw different test images under one seed.
    """
    others = {run["seed"]: run for run in by_method[reference]}
    pairs = [(run, others[run["seed"]]) for run in by_method[method] if run["seed"] in others]
    for a, b in pairs:
        if not (np.array_equal(a["indices"], b["indices"]) and np.array_equal(a["labels"], b["labels"])):
            raise SummaryError(
                f"methods {method} and {reference}, seed {a['seed']}: tested on different images, so they "
                "cannot be paired; run both on the same prepared data"
            )
    return pairs


def share(settings: dict) -> float:
    """The share of the training patients that a method is trained on; records made before there were shares say none."""
    return settings["train"].get("share", 1.0)


def _difference(ours: list[dict], theirs: list[dict], margin: float) -> dict:
    """What comparisons.csv says of one pair of methods, seeds paired."""
    found, auc = (estimate(ours, metric, theirs) for metric in ("accuracy", "macro_auc"))
    parts = np.zeros(len(ours[0]["figures"]["accuracy"][1]))
    for a, b in zip(ours, theirs, strict=True):
        correct = _correct(a).astype(float) - _correct(b)
        np.add.at(parts, a["units"], correct / (len(ours) * len(correct)))
    low, high = found.interval()
    auc_low, auc_high = auc.interval()
    return {
        "difference": found.mean,
        "lo": low,
        "hi": high,
        "p": found.p_value(),
        "p_swap": stats.swap_p(parts),
        "prob_improvement": found.improvement(),
        "margin": margin,
        "tost_p": found.equivalence_p(margin),
        "seeds_needed": found.seeds_needed(margin),
        "auc_difference": auc.mean,
        "auc_lo": auc_low,
        "auc_hi": auc_high,
        "auc_p": auc.p_value(),
    }


def _correct(run: dict) -> np.ndarray:
    return run["probabilities"].argmax(1) == run["labels"]


def references(method: str, settings: dict[str, dict]) -> dict[str, str]:
    """The methods that a method is compared with, by family: the first `full` and the first `transfer` method on its backbone
    that train on the same share of the labels.

    A network trained from scratch on whose backbone there is no other such method is compared with the first of the
    profile, whatever their backbone. No method is compared with itself, but a second `full` method is with the first.

    Args:
        method: one of the keys of `settings`.
        settings: every method's settings, in the profile's order.
    """

    def first(candidates):
        methods = {}
        for other in candidates:
            methods.setdefault(settings[other].get("family"), other)
        return {family: methods[family] for family in REFERENCES if methods.get(family, method) != method}

    backbone, weights = (settings[method].get(key) for key in ("backbone", "weights"))
    like = [other for other in settings if share(settings[other]) == share(settings[method])]
    found = first(other for other in like if settings[other].get("backbone") == backbone)
    return found or (first(like) if weights == "random" else {})


def rivals(by_method: dict[str, list[dict]], settings: dict[str, dict]) -> list[tuple[str, str, str]]:
    """(CoLoRA method, group, the group's method) for each of `GROUPS`, each method the best of its kind by validation accuracy;
    then the same for each of `PEERS`. CoLoRA and peers are those on the backbone of the profile's first CoLoRA method;
    all train on the largest share of the labels, where shares differ.

    Methods without a run are no candidates; without a CoLoRA method, or one of a kind, nothing is compared. Validation
    picks both sides, since the best by test accuracy would owe some of it to luck.
    """

    def best(methods) -> str | None:
        # To the digits of runs.csv, from which the report picks the same method.
        scores = {
            method: round(
                float(np.mean([float(f"{run['metrics']['val']['acc']:.6g}") for run in by_method[method]])), 9
            )
            for method in methods
            if by_method[method]
        }
        return max(scores, key=scores.get) if scores else None

    most = {method: settings[method] for method in of_largest_share(settings)}
    backbone = next((own.get("backbone") for own in most.values() if own.get("family") == "colora"), None)
    beside = [method for method, own in most.items() if own.get("backbone") == backbone]
    colora = best(method for method in beside if most[method].get("family") == "colora")
    if not colora:
        return []
    kinds = {name: [method for method, own in most.items() if group(own.get("family"), own.get("backbone")) == name]
             for name in GROUPS}  # fmt: skip
    kinds |= {name: [method for method in beside if most[method].get("family") == name] for name in PEERS}
    found = [(colora, name, best(methods)) for name, methods in kinds.items()]
    return [row for row in found if row[2]]


def of_largest_share(settings: dict[str, dict]) -> list[str]:
    """The methods that train on the largest share of the labels there is; all, where it is one for all."""
    largest = max((share(own) for own in settings.values()), default=1.0)
    return [method for method, own in settings.items() if share(own) == largest]


def group(family: str, backbone: str) -> str | None:
    """The one of `GROUPS` that a method is of, by its family or else its backbone; None for a CNN."""
    if family in ("medmamba", "vim"):
        return "state space"
    if family in ("kan_head", "medkan"):
        return "KAN"
    return "ViT" if family == "lora" or re.search(r"vit|deit", str(backbone)) else None


def rank(by_method: dict[str, list[dict]]) -> list[dict]:
    """Mean rank of test accuracy over the seeds that any method has: rows of ranks.csv.

    A method without all of those seeds is a hole and gets no rank: it would be ranked on other seeds than the rest.
    """
    seeds = sorted({run["seed"] for own in by_method.values() for run in own})
    accuracies = {method: [run["figures"]["accuracy"][0] for run in own] for method, own in by_method.items()}
    whole = [method for method, own in accuracies.items() if seeds and len(own) == len(seeds)]
    # Rounded, since equal accuracies must tie.
    values = np.array([accuracies[method] for method in whole]).T.round(9)
    ranks = dict(zip(whole, stats.mean_ranks(values), strict=True)) if whole else {}
    chi2, p = stats.friedman(values) if whole else (float("nan"),) * 2
    about = {
        "seeds": len(seeds),
        "methods": len(whole),
        "cd": stats.critical_difference(len(whole), len(seeds)),
        "friedman_chi2": chi2,
        "friedman_p": p,
    }
    return [{"method": method, "mean_rank": ranks.get(method), **about} for method in by_method]
