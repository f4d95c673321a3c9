"""Choose a few test images on which to show where networks looked, and keep them with the Grad-CAM maps of some methods.

After `prepare` and `train` no other stage reads images: results/<profile>/explain.npz holds what the report shows of
them. Run `python -m pipelines.explain` with the runs of the first probed seed and the prepared data in place.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

from pipelines.profile import Params, load

METHODS = 8  # columns of the picture
EACH = 3  # images of agreement, and as many of disagreement
FIRST = ("colora", "full", "head_only")  # families on a CNN that are shown in any case
AGREE, DIFFER = "agreement", "disagreement"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.explain", description=__doc__)
    parser.add_argument("--profile-file", default="params.yaml", help="composed parameters (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        params = load(options.profile_file)
        path = explain(params)
    except (ValueError, OSError) as error:  # of ours: ParamsError, RecordError, SummaryError
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{path} written" if path else f"profile {params.profile!r} has no `probe` section: nothing to explain")
    return 0


def explain(params: Params) -> Path | None:
    """Write results/<profile>/explain.npz; without `probe` in the profile, an archive of nothing, and return None.

    Of m images and a methods it holds: images (m, H, W) or (m, H, W, 3) uint8, as prepared; indices and labels (m,); shows
    (m,), "agreement" or "disagreement"; methods (a,), in the profile's order; predicted and probability (a, m), the class
    named and how sure; maps0 to maps<a-1> (m, h, w) uint8, each of its method's own size; classes (C,); seed and pool: of
    which seed the networks are, and how many images were there to choose from.

    Raises:
        SummaryError: as `reading.read_runs` and `probed.Probed`; or the prepared data are missing, or not those that the
            runs were tested on.
    """
    import numpy as np

    from pipelines.files import records
    from pipelines.runs import reading

    out = params.results_dir / "explain.npz"
    if params.probe is None:
        records.write_arrays(out)
        return None
    seed = next(seed for seed in params.seeds if any(params.probed(method, seed) for method in params.method))
    found, _ = reading.read_runs(params)
    maps = _read_maps(params, found, seed)
    methods = shown(params, {method: [run for (name, _), run in found.items() if name == method] for method in maps})
    if not methods:
        raise reading.SummaryError(
            f"{params.results_dir / 'runs'}: no method has a run of seed {seed} with a gradcam.npz; run `python -m "
            f"pipelines.train --method METHOD --seed {seed}`"
        )
    indices, first = maps[methods[0]]["indices"], found[methods[0], seed]
    labels = first["labels"][maps[methods[0]]["places"]]
    probabilities = np.array([found[method, seed]["probabilities"][maps[method]["places"]] for method in methods])
    agree, differ = choose(labels, probabilities)
    chosen = np.array(agree + differ)
    records.write_arrays(
        out,
        images=_images(params, indices[chosen], labels[chosen]), indices=indices[chosen], labels=labels[chosen],
        shows=np.array([AGREE] * len(agree) + [DIFFER] * len(differ)), methods=np.array(methods),
        predicted=probabilities.argmax(2)[:, chosen], probability=probabilities.max(2)[:, chosen],
        classes=np.array(first["data"]["classes"]), seed=np.array(seed), pool=np.array(len(indices)),
        **{f"maps{number}": maps[method]["maps"][chosen] for number, method in enumerate(methods)},
    )  # fmt: skip
    return out


def shown(params: Params, runs: dict[str, list[dict]]) -> list[str]:
    """The methods to show, in the profile's order: one a family and kind of network, the best by validation accuracy.

    CNN methods are those on the backbone of the first CoLoRA method, where there are any: they differ in their method alone.
    Of more than `METHODS`, CoLoRA, full fine-tuning and transfer stay, the best ViT, state-space and KAN method, and then the
    best. Test accuracy decides nothing: a method might owe its place to the images that it is shown on.

    Args:
        runs: each candidate's runs, at least one, of any seeds.
    """
    from pipelines.evidence.comparisons import GROUPS, group

    scores = {method: round(sum(c["metrics"]["val"]["acc"] for c in own) / len(own), 9) for method, own in runs.items()}
    # What the runs say: a network of its own has no backbone in the profile.
    settings = {method: own[0]["settings"] for method, own in runs.items()}
    ordered = sorted(runs, key=lambda method: -scores[method])  # of methods that tie, the profile's first
    ours = next(
        (own["backbone"] for method in params.method if (own := settings.get(method)) and own["family"] == "colora"),
        None,
    )
    kinds = {}
    for method in sorted(ordered, key=lambda method: settings[method]["backbone"] != ours):
        family = settings[method]["family"]
        kinds.setdefault((group(family, settings[method]["backbone"]), family), method)
    always = [kinds.get((None, family)) for family in FIRST]
    always += [next((method for kind, method in kinds.items() if kind[0] == name), None) for name in GROUPS]
    rest = sorted(kinds.values(), key=ordered.index)
    kept = [*dict.fromkeys([method for method in always if method] + rest)][:METHODS]
    return [method for method in params.method if method in kept]


def choose(labels, probabilities, each: int = EACH) -> tuple[list[int], list[int]]:
    """Which images show agreement and which disagreement: at most `each` places of each kind, the clearest first.

    Agreement: of the images that all methods name rightly, or else as many methods as possible, those on which the least sure
    method is surest. Disagreement: those on which most pairs of methods name different classes, and among these the ones on
    which the methods are surest of what they say, on average; none on which all agree. Of each kind the true classes take
    turns, so that one easy or hard class does not fill it. Equal images come in the order of the test.

    Args:
        labels: (n,) classes.
        probabilities: (a, n, C).
    """
    import numpy as np

    named = probabilities.argmax(2)
    right = (named == labels).sum(0)
    of_label = np.take_along_axis(probabilities, np.asarray(labels)[None, :, None], 2)[..., 0]
    differing = np.sum([a != b for a, b in combinations(named, 2)] or [np.zeros(len(labels))], axis=0)
    by_least_sure = np.argsort(-of_label.min(0), kind="stable")
    agree = _in_turns([i for i in by_least_sure if right[i] == right.max()], labels, each)
    by_difference = np.lexsort((-probabilities.max(2).mean(0), -differing))
    return agree, _in_turns([i for i in by_difference if differing[i] and i not in agree], labels, each)


def _in_turns(order, labels, count: int) -> list[int]:
    """The first `count` of the places in `order` when every class has its first before any has a second."""
    seen: dict[int, int] = {}
    turns = []
    for rank, place in enumerate(order):
        turn = seen[labels[place]] = seen.get(labels[place], -1) + 1
        turns.append((turn, rank, int(place)))
    return [place for _, _, place in sorted(turns)[:count]]


def _read_maps(params: Params, runs: dict, seed: int) -> dict[str, dict]:
    """{method: indices (n,), maps (n, h, w), places (n,) in the run's test} of one seed, all methods on the same images."""
    from pipelines.evidence.probed import Probed

    probed = Probed(params, "gradcam.npz", ("indices", "maps"))
    found = {
        method: read for method in params.method if (method, seed) in runs and (read := probed.read(runs[method, seed]))
    }
    for method, read in found.items():
        maps = read["maps"]
        if maps.ndim != 3 or len(maps) != len(read["indices"]) or not maps.size or maps.dtype.name != "uint8":
            raise probed.error(runs[method, seed], f"maps should be uint8 (n, h, w), found {maps.dtype} {maps.shape}")
    return found


def _images(params: Params, indices, labels):
    """The prepared images at these indices, which should have these labels."""
    import numpy as np

    from pipelines.data import prepared
    from pipelines.data.errors import DataError
    from pipelines.runs.reading import SummaryError

    again = "run `python -m pipelines.prepare` first"
    try:
        images, truth = prepared.open_images(params.data_dir)
    except DataError as error:
        raise SummaryError(f"{error}, on the data that the runs were trained on") from None
    if indices.max() >= len(truth) or not np.array_equal(truth[indices], labels):
        raise SummaryError(
            f"{params.data_dir}: its labels of images {indices.tolist()} are not those that the runs were tested on; "
            f"{again}, on the data that the runs were trained on"
        )
    return np.asarray(images[indices])


if __name__ == "__main__":
    sys.exit(main())
