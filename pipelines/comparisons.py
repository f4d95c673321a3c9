"""Arms against their references, and all arms by rank: the rows of comparisons.csv, mcnemar.csv and ranks.csv."""

import re

import numpy as np

from pipelines import stats
from pipelines.cells import SummaryError
from pipelines.params import Params

REFERENCES = ("full", "transfer")
GROUPS = ("ViT", "state space", "KAN")  # other kinds of network, whose best arm the best CoLoRA arm is set against
PEERS = ("bitfit", "adapters", "conv_lora")  # other parameter-efficient methods for CNNs, likewise, on its backbone
COLUMNS = (
    "arm", "against", "reference", "difference", "lo", "hi", "seeds", "test_images", "p", "p_holm", "p_swap",
    "p_swap_holm", "prob_improvement", "margin", "tost_p", "tost_p_holm", "equivalent", "seeds_needed", "mcnemar_seeds",
    "auc_difference", "auc_lo", "auc_hi", "auc_p", "auc_p_holm",
)  # fmt: skip
MCNEMAR_COLUMNS = ("arm", "against", "reference", "seed", "test_images", "only_arm", "only_reference", "p")
RANK_COLUMNS = ("arm", "mean_rank", "seeds", "arms", "cd", "friedman_chi2", "friedman_p")


def measure(cells: dict, n_units: int) -> None:
    """Give every cell "figures": by metric its value and the influence of each unit, (U,). Needs `cells.add_units`."""
    for cell in cells.values():
        test = cell["labels"], cell["probabilities"]
        cell["figures"] = {name: stats.jackknife(test, name, cell["units"], n_units) for name in stats.METRICS}


def estimate(cells: list[dict], metric: str, minus: list[dict] | None = None) -> stats.Estimate:
    """The mean of a metric over cells of different seeds, or of its difference from the cells `minus`, pair by pair."""
    values, influence = (np.array(part) for part in zip(*(cell["figures"][metric] for cell in cells), strict=True))
    if minus is not None:
        theirs = [cell["figures"][metric] for cell in minus]
        values, influence = values - [value for value, _ in theirs], influence - [own for _, own in theirs]
    grid = 1 / min(len(cell["labels"]) for cell in cells) if metric == "accuracy" else 0.0
    units = len(np.unique(np.concatenate([cell["units"] for cell in cells])))
    return stats.estimate(values, influence, units, grid=grid)


def compare(params: Params, by_arm: dict[str, list[dict]]) -> tuple[list[dict], list[dict]]:
    """Each arm's paired differences from its references (see `references`), then those of the best CoLoRA arm from the
    best of each group and of each peer method (see `rivals`): rows of comparisons.csv and mcnemar.csv.

    Holm's correction is over all arms against one family of references: the comparisons that a reader sees together.
    The comparisons with other groups, three at most, are a family of their own, and so are those with peers: each
    answers one question, and the other families' p do not hang on whether a profile has a ViT.

    Raises:
        SummaryError: the two arms saw different test images under one seed.
    """
    rows, mcnemar = [], []
    # What the runs say, where there are any: networks trained from scratch have a backbone of their own there.
    settings = {arm: own[0]["settings"] if own else params.settings(arm) for arm, own in by_arm.items()}
    asked = [(arm, *pair) for arm in by_arm for pair in references(arm, settings).items()]
    for arm, family, reference in asked + rivals(by_arm, settings):
        pairs = paired(by_arm, arm, reference)
        row = {"arm": arm, "against": family, "reference": reference, "seeds": len(pairs)}
        images = [a["indices"] for a, _ in pairs]
        row["test_images"] = len(np.unique(np.concatenate(images))) if pairs else 0
        if pairs:
            row |= _difference([a for a, _ in pairs], [b for _, b in pairs], params.evidence.margin)
        for a, b in pairs:
            only_arm, only_reference, p = stats.mcnemar(_correct(a), _correct(b))
            found = (arm, family, reference, a["seed"], len(a["labels"]), only_arm, only_reference, p)
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


def paired(by_arm: dict[str, list[dict]], arm: str, reference: str) -> list[tuple[dict, dict]]:
    """The cells of two arms, seed by seed, where both have one.

    Raises:
        SummaryError: they saw different test images under one seed.
    """
    others = {cell["seed"]: cell for cell in by_arm[reference]}
    pairs = [(cell, others[cell["seed"]]) for cell in by_arm[arm] if cell["seed"] in others]
    for a, b in pairs:
        if not (np.array_equal(a["indices"], b["indices"]) and np.array_equal(a["labels"], b["labels"])):
            raise SummaryError(
                f"arms {arm} and {reference}, seed {a['seed']}: tested on different images, so they "
                "cannot be paired; run both on the same prepared data"
            )
    return pairs


def share(settings: dict) -> float:
    """The share of the training patients that an arm is trained on; records made before there were shares say none."""
    return settings["train"].get("share", 1.0)


def _difference(ours: list[dict], theirs: list[dict], margin: float) -> dict:
    """What comparisons.csv says of one pair of arms, seeds paired."""
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


def _correct(cell: dict) -> np.ndarray:
    return cell["probabilities"].argmax(1) == cell["labels"]


def references(arm: str, settings: dict[str, dict]) -> dict[str, str]:
    """The arms that an arm is compared with, by family: the first `full` and the first `transfer` arm on its backbone
    that train on the same share of the labels.

    A network trained from scratch on whose backbone there is no other such arm is compared with the first of the
    profile, whatever their backbone. No arm is compared with itself, but a second `full` arm is with the first.

    Args:
        arm: one of the keys of `settings`.
        settings: every arm's settings, in the profile's order.
    """

    def first(candidates):
        arms = {}
        for other in candidates:
            arms.setdefault(settings[other].get("family"), other)
        return {family: arms[family] for family in REFERENCES if arms.get(family, arm) != arm}

    backbone, weights = (settings[arm].get(key) for key in ("backbone", "weights"))
    like = [other for other in settings if share(settings[other]) == share(settings[arm])]
    found = first(other for other in like if settings[other].get("backbone") == backbone)
    return found or (first(like) if weights == "random" else {})


def rivals(by_arm: dict[str, list[dict]], settings: dict[str, dict]) -> list[tuple[str, str, str]]:
    """(CoLoRA arm, group, the group's arm) for each of `GROUPS`, each arm the best of its kind by validation accuracy;
    then the same for each of `PEERS`. CoLoRA and peers are those on the backbone of the profile's first CoLoRA arm;
    all train on the largest share of the labels, where shares differ.

    Arms without a cell are no candidates; without a CoLoRA arm, or one of a kind, nothing is compared. Validation
    picks both sides, since the best by test accuracy would owe some of it to luck.
    """

    def best(arms) -> str | None:
        # To the digits of cells.csv, from which the report picks the same arm.
        scores = {
            arm: round(float(np.mean([float(f"{cell['metrics']['val']['acc']:.6g}") for cell in by_arm[arm]])), 9)
            for arm in arms
            if by_arm[arm]
        }
        return max(scores, key=scores.get) if scores else None

    most = {arm: settings[arm] for arm in of_largest_share(settings)}
    backbone = next((own.get("backbone") for own in most.values() if own.get("family") == "colora"), None)
    beside = [arm for arm, own in most.items() if own.get("backbone") == backbone]
    colora = best(arm for arm in beside if most[arm].get("family") == "colora")
    if not colora:
        return []
    kinds = {name: [arm for arm, own in most.items() if group(own.get("family"), own.get("backbone")) == name]
             for name in GROUPS}  # fmt: skip
    kinds |= {name: [arm for arm in beside if most[arm].get("family") == name] for name in PEERS}
    found = [(colora, name, best(arms)) for name, arms in kinds.items()]
    return [row for row in found if row[2]]


def of_largest_share(settings: dict[str, dict]) -> list[str]:
    """The arms that train on the largest share of the labels there is; all, where it is one for all."""
    largest = max((share(own) for own in settings.values()), default=1.0)
    return [arm for arm, own in settings.items() if share(own) == largest]


def group(family: str, backbone: str) -> str | None:
    """The one of `GROUPS` that an arm is of, by its family or else its backbone; None for a CNN."""
    if family in ("medmamba", "vim"):
        return "state space"
    if family in ("kan_head", "medkan"):
        return "KAN"
    return "ViT" if family == "lora" or re.search(r"vit|deit", str(backbone)) else None


def rank(by_arm: dict[str, list[dict]]) -> list[dict]:
    """Mean rank of test accuracy over the seeds that any arm has: rows of ranks.csv.

    An arm without all of those seeds is a hole and gets no rank: it would be ranked on other seeds than the rest.
    """
    seeds = sorted({cell["seed"] for own in by_arm.values() for cell in own})
    accuracies = {arm: [cell["figures"]["accuracy"][0] for cell in own] for arm, own in by_arm.items()}
    whole = [arm for arm, own in accuracies.items() if seeds and len(own) == len(seeds)]
    # Rounded, since equal accuracies must tie.
    values = np.array([accuracies[arm] for arm in whole]).T.round(9)
    ranks = dict(zip(whole, stats.mean_ranks(values), strict=True)) if whole else {}
    chi2, p = stats.friedman(values) if whole else (float("nan"),) * 2
    about = {
        "seeds": len(seeds),
        "arms": len(whole),
        "cd": stats.critical_difference(len(whole), len(seeds)),
        "friedman_chi2": chi2,
        "friedman_p": p,
    }
    return [{"arm": arm, "mean_rank": ranks.get(arm), **about} for arm in by_arm]
