"""Statistics of the comparison: bootstrap intervals, as pure functions on arrays.

A *test* is what one seed saw: the pair (labels (N,), probabilities (N, C)) on its test images.

Two sources of chance are resampled: the seeds (initialisation, order, fold) and the test images. How they
combine depends on the design. With one test set for every seed (`shared=True`) an easy image is easy for all
seeds, so a bootstrap draw takes *one* sample of images and uses it for every seed it draws (crossed design,
Owen 2007, "The pigeonhole bootstrap"). With folds, each seed has images of its own, and each drawn seed gets
its own sample (nested design, Davison & Hinkley 1997, section 3.8). Treating a shared test set as nested
would understate the uncertainty by up to the square root of the number of seeds.

Intervals are percentile intervals. Both designs count the noise of a seed's mean once more than needed, so
with several seeds they are a little wide rather than narrow; with one seed only the images vary, and the
interval then says nothing about other seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.metrics import accuracy, accuracy_draws, macro_auc, macro_auc_draws

Test = tuple[np.ndarray, np.ndarray]

METRICS: dict[str, Callable] = {"accuracy": accuracy_draws, "macro_auc": macro_auc_draws}

_BLOCK = 2_000_000  # counts held at once, so that 10 000 test images need no gigabyte


def interval(
    tests: Sequence[Test],
    metric: str = "accuracy",
    *,
    shared: bool,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of a metric's mean over seeds.

    Args:
        tests: one (labels (N,), probabilities (N, C)) for each seed.
        metric: a key of `METRICS`.
        shared: whether row i of every test is the same image (one test set for all seeds).
        draws, level, seed: bootstrap draws, coverage aimed at, and the random generator's seed.

    Returns:
        (low, high), the (1 -+ level) / 2 quantiles of the resampled means.

    Raises:
        ValueError: no test, an unknown metric, or `shared` with tests of different length.
    """
    (values,) = _image_draws([tests], metric, shared, draws, seed)
    return _quantiles(_seed_draws(values, shared, seed), level)


def paired_difference(
    first: Sequence[Test],
    second: Sequence[Test],
    metric: str = "accuracy",
    *,
    shared: bool,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean over seeds of metric(first) - metric(second), with its bootstrap interval.

    Entry s of both sequences is the same seed on the same images in the same order, so every draw uses the
    same seeds and images on both sides: what makes a seed or an image easy for both cancels.

    Returns:
        (difference, low, high).

    Raises:
        ValueError: as `interval`, or the two sides do not have the same labels seed by seed.
    """
    if len(first) != len(second):
        raise ValueError(f"paired_difference: {len(first)} and {len(second)} tests; give both arms the same seeds")
    for place, ((a, _), (b, _)) in enumerate(zip(first, second, strict=True)):
        if not np.array_equal(a, b):
            raise ValueError(f"paired_difference: test {place} has other labels on each side; pair the same images")
    ours, theirs = _image_draws([first, second], metric, shared, draws, seed)
    everything = [np.ones((1, len(labels)), np.int64) for labels, _ in first]
    mean = np.mean(
        [
            METRICS[metric](*a, n)[0] - METRICS[metric](*b, n)[0]
            for a, b, n in zip(first, second, everything, strict=True)
        ]
    )
    return float(mean), *_quantiles(_seed_draws(ours - theirs, shared, seed), level)


def _image_draws(sides: Sequence[Sequence[Test]], metric: str, shared: bool, draws: int, seed: int) -> np.ndarray:
    """The metric of each side and seed under resampled images, the same images for all sides: (sides, draws, S)."""
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is unknown; known: {', '.join(METRICS)}")
    lengths = [len(labels) for labels, _ in sides[0]]
    if not lengths:
        raise ValueError("no test to resample; give at least one seed")
    if shared and len(set(lengths)) > 1:
        raise ValueError(f"shared=True, but the tests have {lengths} images; tests of folds need shared=False")
    values = np.empty((len(sides), draws, len(lengths)))
    groups = [range(len(lengths))] if shared else [[s] for s in range(len(lengths))]
    for group in groups:  # seeds that are tested on the same images
        for rows, counts in _counts(lengths[group[0]], draws, np.random.default_rng([seed, group[0]])):
            for i, tests in enumerate(sides):
                for s in group:
                    values[i, rows, s] = METRICS[metric](*tests[s], counts)
    return values


def _counts(n: int, draws: int, rng: np.random.Generator):
    """Blocks of multinomial counts (rows, n): how often each image occurs in a sample of n with replacement."""
    step = max(1, _BLOCK // n)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picks = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield slice(start, start + rows), np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)


def _seed_draws(values: np.ndarray, shared: bool, seed: int) -> np.ndarray:
    """Means over resampled seeds: (draws, S) -> (draws,).

    In the nested design a seed drawn twice must get two independent samples of images; slot k therefore reads
    its value from k draws further on.
    """
    draws, n_seeds = values.shape
    picked = np.random.default_rng([seed, 1_000_003]).integers(n_seeds, size=(draws, n_seeds))
    rows = np.arange(draws)[:, None] + (0 if shared else np.arange(n_seeds))
    return values[rows % draws, picked].mean(1)


def _quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """Percentile limits; draws in which a class had no image (NaN) are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
