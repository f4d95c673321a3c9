"""Keep pictures for the report, which reads no data: where networks looked, and hard scans."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.data import prepared
from pipelines.data.errors import DataError
from pipelines.evidence import declared, hard_scans
from pipelines.evidence import outcomes as tests
from pipelines.evidence.probed import Probed
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.runs.reading import common_classes, read_runs

EACH = 3  # images of agreement, and as many of disagreement
AGREE, DIFFER = "agreement", "disagreement"


def explain(params: Params) -> dict[Path, str]:
    """Write results/<profile>/explain.npz and hard_scans.npz; {path: what is in it, in words}.

    hard_scans.npz: image (m,) and pixels (m, H, W) or (m, H, W, 3) uint8, as prepared, of the rows of hard_scans.csv.
    explain.npz, an archive of nothing without `probe` in the profile: of m images and a methods images, as pixels;
    indices and labels (m,); shows (m,), "agreement" or "disagreement"; methods (a,), in the profile's order; predicted
    and probability (a, m), the class named and how sure; maps0 to maps<a-1> (m, h, w) uint8, each of its method's own
    size; classes (C,); seed and pool: of which seed the networks are, and from how many images these were chosen.

    Raises:
        UserError: as `read_runs` and `Probed`; or the prepared data are missing, or not those of the runs.
    """
    runs, _ = read_runs(params)
    return {**_write_hard_scans(params, runs), **_write_maps(params, runs)}


def _write_hard_scans(params: Params, runs: dict) -> dict[Path, str]:
    outcomes = tests.gather(params, runs)["test"]
    classes, wanted = common_classes(runs), declared.present(params, [m for m, own in outcomes.items() if own])
    chosen = [own for method in wanted for own in outcomes[method]]
    rows = hard_scans.hard(hard_scans.misclassified(chosen, classes))
    image = rows.image.to_numpy(np.int64)
    labels = np.array([classes.index(name) for name in rows.label], np.int64)
    path = params.results_dir / "hard_scans.npz"
    records.write_arrays(path, image=image, pixels=_pixels(params, image, labels))
    return {path: f"{len(image)} scans that most runs get wrong with confidence"}


def _write_maps(params: Params, runs: dict) -> dict[Path, str]:
    path = params.results_dir / "explain.npz"
    if params.probe is None:
        records.write_arrays(path)
        return {path: "nothing, the profile has no section `probe`"}
    probed = Probed(params, "gradcam.npz", {"maps": "u n h w"})
    for seed in sorted({seed for method, seed in runs if params.probed(method, seed)}):
        maps = {method: own for (method, of), run in runs.items() if of == seed and (own := probed.read(run))}
        if maps:
            break
    else:
        raise UserError(
            f"{params.results_dir / 'runs'}: no probed run has a gradcam.npz; run `python -m pipelines.train`, or "
            "leave `probe` out of the profile"
        )
    methods = declared.present(params, maps)
    first, own = runs[methods[0], seed], maps[methods[0]]
    indices, labels = own["indices"], first["labels"][own["places"]]
    probabilities = np.array([runs[method, seed]["probabilities"][maps[method]["places"]] for method in methods])
    agree, differ = choose(labels, probabilities)
    chosen = np.array(agree + differ)
    records.write_arrays(
        path,
        images=_pixels(params, indices[chosen], labels[chosen]), indices=indices[chosen], labels=labels[chosen],
        shows=np.array([AGREE] * len(agree) + [DIFFER] * len(differ)), methods=np.array(methods),
        predicted=probabilities.argmax(2)[:, chosen], probability=probabilities.max(2)[:, chosen],
        classes=np.array(first["data"]["classes"]), seed=np.array(seed), pool=np.array(len(indices)),
        **{f"maps{number}": maps[method]["maps"][chosen] for number, method in enumerate(methods)},
    )  # fmt: skip
    return {path: f"{len(chosen)} images as {len(methods)} methods see them"}


def choose(labels, probabilities, each: int = EACH) -> tuple[list[int], list[int]]:
    """Which images show agreement and which disagreement: at most `each` places of each kind, the clearest first.

    Agreement: of the images that all methods name rightly, or else as many methods as possible, those on which the
    least sure method is surest. Disagreement: those on which most pairs of methods name different classes, and among
    these the ones on which the methods are surest of what they say, on average; none on which all agree. Of each kind
    the true classes take turns, so that one easy or hard class does not fill it. Equal images come in the order of the
    test.

    Args:
        labels: (n,) classes.
        probabilities: (a, n, C).
    """
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
    classes = pd.Series(labels[order])
    turns = classes.groupby(classes).cumcount()
    return [int(order[rank]) for rank in turns.argsort(kind="stable")[:count]]


def _pixels(params: Params, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The prepared images at these indices, which should have these labels."""
    try:
        images, truth = prepared.open_images(params.data_dir)
    except DataError as error:
        raise UserError(f"{error}, on the data that the runs were trained on") from None
    if len(indices) and (indices.max() >= len(truth) or not np.array_equal(truth[indices], labels)):
        raise UserError(
            f"{params.data_dir}: its labels of images {indices.tolist()} are not those that the runs were tested on; "
            "run `python -m pipelines.prepare` first, on the data that the runs were trained on"
        )
    return np.asarray(images[indices])
