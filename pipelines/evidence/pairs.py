"""Exploratory comparisons: every method against its references, unadjusted and without verdicts: rows of pairs.csv."""

from pipelines.evidence import outcomes as tests
from pipelines.evidence.outcomes import Outcome

FAMILIES = ("full", "head_only")


def references(
    method: str,
    settings: dict[str, dict],
    declared: str | None = None,
    machines: dict[str, dict[int, str]] | None = None,
) -> dict[str, str]:
    """The methods that a method is set against, {role: method}: the declared one where the profile has it, the first
    `full` and `head_only` method on its backbone that train on the same share of the labels, and as `again` the first
    method that is the same, or the same but for its learning rate.

    A network trained from scratch on whose backbone there is no other such method is set against the first of the
    profile, whatever their backbone. No method is compared with itself, but a second `full` method is with the first.
    A reference that was trained on another machine gives way to its second run, the same in all its settings, which
    has every seed that the two have in common on the method's own machine.

    Args:
        settings: every method's, in the profile's order.
        machines: what each run of a method was trained on, by seed.
    """
    machines = machines or {}
    own = machines.get(method, {})

    def first(candidates):
        found = {}
        for other in candidates:
            found.setdefault(settings[other].get("family"), other)
        return {family: found[family] for family in FAMILIES if found.get(family, method) != method}

    def nearest(reference):
        needed = machines.get(reference, {}).keys() & own.keys()
        same = [other for other in (reference, *settings) if settings[other] == settings[reference] and other != method]
        here = [other for other in same if all(machines.get(other, {}).get(seed) == own[seed] for seed in needed)]
        return here[0] if here and needed else reference

    backbone, weights = (settings[method].get(key) for key in ("backbone", "weights"))
    like = [other for other in settings if share(settings[other]) == share(settings[method])]
    found = first(other for other in like if settings[other].get("backbone") == backbone)
    found = found or (first(like) if weights == "random" else {})
    if declared in like and declared != method:
        found = {"declared": declared, **found}
    found = {role: nearest(other) for role, other in found.items()}
    alike = next(other for other in settings if _but_rate(settings[other]) == _but_rate(settings[method]))
    return found | ({"again": alike} if alike != method else {})


def _but_rate(settings: dict) -> dict:
    return {**settings, "train": {name: value for name, value in settings["train"].items() if name != "lr"}}


def share(settings: dict) -> float:
    """The share of the training patients that a method is trained on."""
    return settings["train"]["share"]


def rows(
    data: str,
    outcomes: dict[str, list[Outcome]],
    settings: dict[str, dict],
    declared: str | None,
    machines: dict[str, dict[int, str]],
) -> list[dict]:
    """Rows of pairs.csv on one data set; a pair without a common seed has none."""
    found = []
    for method, own in outcomes.items():
        for role, reference in references(method, settings, declared, machines).items():
            pairs = tests.paired(own, outcomes.get(reference, []))
            for metric in ("accuracy", "auc") if data == "test" else ("balanced_accuracy", "auc"):
                if pairs:
                    estimate = tests.difference(pairs, metric)
                    lo, hi = estimate.interval_over_runs()
                    found.append({
                        "data": data, "method": method, "reference": reference, "role": role, "metric": metric,
                        "difference": estimate.mean, "lo": lo, "hi": hi, "runs": estimate.runs,
                        "images": tests.count_images([a for a, _ in pairs]),
                    })  # fmt: skip
    return found
