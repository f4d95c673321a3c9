"""Statistics of the comparison, as pure functions on arrays: intervals, paired differences, equivalence, power.

A *test* is what one seed saw: the pair (labels (N,), probabilities (N, C)) on its test images. A *unit* is what is
drawn at random to make a test set: a patient with all of his images, or an image where patients are not known.

Two sources of chance count: the seeds (initialisation, order, fold) and the units. With theta_s a metric's value under
seed s, s^2 their sample variance over the S seeds, and psi_su the influence of unit u on theta_s (delete-one-unit
jackknife, Efron & Stein 1981), the mean over seeds has the variance

    Var = s^2 / S + C,    C = max(0, mean over s != t of sum_u psi_su psi_tu),

which is unbiased for new seeds and new units: the noise of images that all seeds share does not show in s^2, so it is
added as C (Obuchowski & Rockette 1995, Commun. Stat. Simul. Comput. 24:285, with seeds for readers and images for
cases; the jackknife covariance as in Hillis et al. 2005). One formula serves both designs: with one test set for every
seed C is the images' part, with folds the seeds share no unit, C = 0, and s^2 holds images and patients already.

The error of the mean is taken as sqrt(s^2 / S) T + sqrt(C) Z, T Student's t with S - 1 degrees of freedom, Z normal:
few seeds estimate s^2 poorly, many images C well (the Behrens-Fisher distribution). Satterthwaite's single t, Hillis's
choice, covered 87 to 94 % with two or three seeds in simulations; this covers 93 to 97.5 % with three seeds or more,
and up to 98.5 % with two, where it errs on the wide side. A method's own interval is made on the logit scale: near an
accuracy of 1 the symmetric one reaches beyond 1 and covers too little. A single seed leaves the images' part alone, and
nothing is then said about other seeds.

What it does not do. With few folds s^2 is now and then small by luck, and an interval narrower than its images alone
would make it (`unit_var`): right on average, not to be leant on then, and the report names such methods. (Taking the wider
of the two, as Wiksten et al. 2016, Stat. Med. 35:2503, do, covers up to 98 % and makes p values small too seldom.) That
folds share training images is not counted: no unbiased variance exists for it (Bengio & Grandvalet 2004, JMLR 5:1089),
so with folds intervals may be somewhat narrow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, ndtr

from pipelines.runs.metrics import accuracy_draws, macro_auc_draws

Test = tuple[np.ndarray, np.ndarray]

METRICS: dict[str, Callable] = {"accuracy": accuracy_draws, "macro_auc": macro_auc_draws}
LEVEL = 0.95

_BLOCK = 4_000_000  # counts held at once, so that 10 000 test images need no gigabyte
_LOG_W = np.linspace(-44.0, 8.0, 417)  # log of a chi-squared variable: the trapezoid rule's nodes


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or over seeds' differences, and what makes it uncertain.

    mean: of the S values. seeds: S. seed_var: s^2, NaN with one seed. image_var: C; with one seed the variance of its
    value. unit_var: sum_u (mean_s psi_su)^2, the variance over units with the trained networks taken as given. units:
    how many units the tests of all seeds have.
    """

    mean: float
    seeds: int
    seed_var: float
    image_var: float
    unit_var: float
    units: int

    def below(self, x: float) -> float:
        """P(error of the mean <= x), from the error's distribution above."""
        seed_part = self.seed_var / self.seeds if self.seeds > 1 else 0.0
        if not np.isfinite(seed_part + self.image_var):
            return float("nan")
        if seed_part + self.image_var == 0:
            return 0.5 if x == 0 else float(x > 0)
        if seed_part == 0:
            return float(ndtr(x / np.sqrt(self.image_var)))
        # T = Z / sqrt(W / df) with W chi-squared: given W the error is normal.
        df = self.seeds - 1
        density = np.exp(df / 2 * (_LOG_W - np.log(2)) - np.exp(_LOG_W) / 2 - gammaln(df / 2))
        given = ndtr(x / np.sqrt(self.image_var + seed_part * df * np.exp(-_LOG_W)))
        return float(np.sum(density * given) / np.sum(density))

    def half_width(self, level: float = LEVEL) -> float:
        """q with P(|error| <= q) = level."""
        spread = np.sqrt(self.image_var + (self.seed_var / self.seeds if self.seeds > 1 else 0.0))
        if not spread > 0:  # zero or NaN
            return float(spread)
        high = spread
        while self.below(high) < (1 + level) / 2:
            high *= 2
        return float(brentq(lambda q: self.below(q) - (1 + level) / 2, 0, high, xtol=1e-12, rtol=1e-10))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """mean -+ q: for a difference, which has no bounds nearby."""
        q = self.half_width(level)
        return self.mean - q, self.mean + q

    def share_interval(self, level: float = LEVEL, *, counted: bool = False) -> tuple[float, float]:
        """The interval of a metric between 0 and 1: logit(mean) -+ q / (mean (1 - mean)), transformed back.

        At a mean of 0 or 1 there is no spread to go by. For a `counted` share (accuracy) the limit is then the binomial
        one, ((1 - level) / 2)^(1 / units) (Clopper & Pearson 1934); for others it cannot be said: NaN.
        """
        if not 0 < self.mean < 1:
            limit = ((1 - level) / 2) ** (1 / self.units) if counted and self.mean in (0, 1) else float("nan")
            return (limit, 1.0) if self.mean == 1 else (0.0, 1 - limit) if self.mean == 0 else (limit, limit)
        q = self.half_width(level) / (self.mean * (1 - self.mean))
        return float(expit(logit(self.mean) - q)), float(expit(logit(self.mean) + q))

    def p_value(self) -> float:
        """Two-sided p of a mean of zero over new seeds and units: below 1 - level where the interval excludes zero."""
        return 2 * self.below(-abs(self.mean)) if self.mean else 1.0

    def equivalence_p(self, margin: float) -> float:
        """p of the two one-sided tests against |mean| >= margin (Schuirmann 1987): the larger of the two."""
        return self.below(abs(self.mean) - margin)

    def improvement(self) -> float:
        """Probability that one seed on one new test set has a positive value: Phi(mean / sqrt(s^2 + C)).

        s^2 + C is the variance of a single seed's value on a test set of its own. For a paired difference this is how
        often one run of the first method beats the same seed of the second (the probability of improvement of Agarwal et
        al. 2021, NeurIPS, paired); 1/2 says that the methods are alike.
        """
        spread = np.sqrt(self.image_var + (self.seed_var if self.seeds > 1 else 0.0))
        return float(ndtr(self.mean / spread)) if spread > 0 else 0.5 + 0.5 * np.sign(self.mean)

    def seeds_needed(self, difference: float, power: float = 0.8, level: float = LEVEL) -> float:
        """The fewest seeds n that show a true difference with this power in a two-sided t test, same test sets.

        1 - power = P(|T'| < t_(level, df)), T' noncentral t with noncentrality difference / sqrt(s^2 / n + C) and
        df = (s^2 / n + C)^2 / ((s^2 / n)^2 / (n - 1)), n - 1 without C (Cohen 1988, ch. 2; Satterthwaite 1946).
        Infinite where even seeds without end fall short, because the test images are too few; NaN with fewer than two
        seeds, whose variance cannot be said.
        """
        if self.seeds < 2 or not np.isfinite(self.seed_var + self.image_var):
            return float("nan")

        def enough(n: int) -> bool:
            part = self.seed_var / n
            variance = part + self.image_var
            if variance == 0:
                return True
            df = min(variance**2 / (part**2 / (n - 1)), 1e6) if part else 1e6
            limit = distributions.t.ppf((1 + level) / 2, df)
            centre = difference / np.sqrt(variance)
            # The chance of a significant difference of the wrong sign is left out: it is no success.
            return distributions.nct.sf(limit, df, centre) >= power if centre < 30 else centre > limit

        wanted = distributions.norm.ppf((1 + level) / 2) + distributions.norm.ppf(power)
        if self.image_var and difference / np.sqrt(self.image_var) <= wanted:
            return float("inf")
        high = 2
        while not enough(high):
            high *= 2
        low = high // 2
        while high - low > 1:  # low is too few, or 1
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return float(max(high, 2))


def jackknife(test: Test, metric: str, units: np.ndarray, n_units: int) -> tuple[float, np.ndarray]:
    """A metric's value on one test, and each unit's influence on it.

    psi_u = sqrt((G - 1) / G) (mean over units of theta_(-u), minus theta_(-u)), where theta_(-u) leaves out the unit's
    images and G is how many units the test has; sum_u psi_u^2 is the jackknife variance.

    Args:
        test: labels (N,) and probabilities (N, C).
        metric: a key of `METRICS`.
        units: the unit of each image, integers (N,) in 0..n_units-1; equal numbers in two tests are one unit.

    Returns:
        value, influence (n_units,): zero for units that the test does not have; NaN where leaving out a unit leaves the
        metric undefined.

    Raises:
        ValueError: an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is unknown; known: {', '.join(METRICS)}")
    draw = METRICS[metric]
    value = float(draw(*test, np.ones((1, len(units)), np.int64))[0])
    present = np.unique(units)
    influence = np.zeros(n_units)
    if len(present) < 2:
        influence[present] = np.nan
        return value, influence
    step = max(1, _BLOCK // len(units))
    without = np.concatenate(
        [
            draw(*test, (units != present[start : start + step, None]).astype(np.int32))
            for start in range(0, len(present), step)
        ]
    )
    influence[present] = (without.mean() - without) * np.sqrt((len(present) - 1) / len(present))
    return value, influence


def estimate(values: np.ndarray, influence: np.ndarray, units: int, *, grid: float = 0.0) -> Estimate:
    """The mean over seeds with its two parts of variance.

    Args:
        values: a metric, or a paired difference of two, seed by seed: (S,).
        influence: of each unit on each value: (S, U).
        units: how many units there are in the tests.
        grid: the step in which values move, 1 / N for an accuracy on N images. Variances below what it can resolve are
            raised (s^2 to grid^2 / 12, the variance of rounding; one seed's to grid^2, that of a single image), or two
            seeds that agree by rounding would leave no uncertainty at all.
    """
    values, influence = np.asarray(values, float), np.asarray(influence, float)
    seeds, own = len(values), float(np.sum(influence**2))
    if seeds == 1:
        own = max(own, grid**2)
        return Estimate(float(values[0]), 1, float("nan"), own, own, units)
    shared = (float(np.sum(influence.sum(0) ** 2)) - own) / (seeds * (seeds - 1))
    # Of units that no two seeds share only rounding is left.
    shared = 0.0 if shared < 1e-12 * own else shared
    between = max(float(values.var(ddof=1)), grid**2 / 12)
    return Estimate(float(values.mean()), seeds, between, shared, float(np.sum(influence.mean(0) ** 2)), units)


def figures(tests: Sequence[Test], metric: str, units: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`jackknife` of every seed's test: values (S,), influence (S, U).

    Raises:
        ValueError: no test, units that do not fit the tests, or an unknown metric.
    """
    if not len(tests):
        raise ValueError("no test to measure; give at least one seed")
    lengths = [len(labels) for labels, _ in tests], [len(own) for own in units]
    if lengths[0] != lengths[1]:
        raise ValueError(f"the tests have {lengths[0]} images, units are given for {lengths[1]}")
    n_units = 1 + max(int(own.max()) for own in units)
    values, influence = zip(*(jackknife(test, metric, own, n_units) for test, own in zip(tests, units)))
    return np.array(values), np.array(influence)


def interval(
    tests: Sequence[Test], metric: str = "accuracy", *, units: Sequence[np.ndarray], level: float = LEVEL
) -> tuple[float, float]:
    """Interval of a metric's mean over seeds, for new seeds and new units (patients or images).

    Args:
        tests: one (labels (N,), probabilities (N, C)) for each seed.
        metric: a key of `METRICS`.
        units: for each test the unit of each image (N,), whole numbers from 0.
    """
    counted = metric == "accuracy"
    found = estimate(*figures(tests, metric, units), _count(units), grid=_grid(tests) if counted else 0.0)
    return found.share_interval(level, counted=counted)


def paired_difference(
    first: Sequence[Test], second: Sequence[Test], metric: str = "accuracy", *, units: Sequence[np.ndarray]
) -> Estimate:
    """Mean over seeds of metric(first) - metric(second).

    Entry s of both sequences is the same seed on the same images in the same order, so what makes a seed or an image
    easy for both cancels.

    Raises:
        ValueError: as `figures`, or the two sides do not have the same labels seed by seed.
    """
    if len(first) != len(second):
        raise ValueError(f"paired_difference: {len(first)} and {len(second)} tests; give both methods the same seeds")
    for place, ((a, _), (b, _)) in enumerate(zip(first, second, strict=True)):
        if not np.array_equal(a, b):
            raise ValueError(f"paired_difference: test {place} has other labels on each side; pair the same images")
    ours, theirs = figures(first, metric, units), figures(second, metric, units)
    grid = _grid(first) if metric == "accuracy" else 0.0
    return estimate(ours[0] - theirs[0], ours[1] - theirs[1], _count(units), grid=grid)


def _count(units: Sequence[np.ndarray]) -> int:
    return len(np.unique(np.concatenate(units)))


def _grid(tests: Sequence[Test]) -> float:
    return 1 / min(len(labels) for labels, _ in tests)


def swap_p(difference: np.ndarray, draws: int = 9999, seed: int = 0) -> float:
    """Permutation p of no difference between two methods' trained networks: their results swap unit by unit.

    Under the null hypothesis that the two methods are exchangeable on every unit, its part of the mean difference is as
    likely to have the other sign. A unit (a patient, all seeds) swaps as a whole, which respects pairing and clusters.
    The networks are taken as given: a seed's luck, common to all of its images, counts as a difference (moderate luck
    gave p < 0.05 in 15 % of trials of methods alike on average), so this p decides nothing about methods alone. Swapping
    whole seeds would not have that flaw, but its p cannot fall below 2^(1 - S), 0.06 with five seeds:
    `Estimate.p_value` is for new seeds.

    Args:
        difference: each unit's part of the difference, (U,): sums of (correct of one - correct of the other) / (S N_s).

    Returns:
        (1 + draws with |sum of signs x parts| >= |sum of parts|) / (1 + draws) (Phipson & Smyth 2010).
    """
    parts = difference[difference != 0]
    rng = np.random.default_rng(seed)
    reached, observed = 0, abs(parts.sum()) - 1e-12
    step = max(1, _BLOCK // max(1, len(parts)))
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, (min(step, draws - start), len(parts)), dtype=np.int8)
        reached += int(np.sum(np.abs(parts.sum() - 2 * (signs @ parts)) >= observed))
    return (1 + reached) / (1 + draws)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of one seed: images that only the first got right, that only the second did, and p.

    p = P(as uneven a split | Binomial(b + c, 1/2)), two-sided (McNemar 1947; Dietterich 1998). Images count as
    independent, a patient's too.

    Args:
        first, second: whether each image was classified rightly, bool (N,).
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    both = only_first + only_second
    return only_first, only_second, float(distributions.binomtest(only_first, both).pvalue) if both else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """p values adjusted for a family of m tests (Holm 1979): max over j <= i of min(1, (m - j + 1) p_(j)), p ascending.

    A NaN is no test and stays NaN.
    """
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Average rank of each method over seeds, rank 1 the highest value, ties sharing theirs: (S, k) -> (k,)."""
    return distributions.rankdata(-np.asarray(values), axis=1).mean(0)


def friedman(values: np.ndarray) -> tuple[float, float]:
    """Friedman's test of equal ranks of k methods over S seeds (S, k): chi-squared and p; NaN for k < 3 or S < 2."""
    seeds, methods = values.shape
    if methods < 3 or seeds < 2:
        return float("nan"), float("nan")
    if (values == values[:, :1]).all():  # nothing but ties
        return 0.0, 1.0
    found = distributions.friedmanchisquare(*values.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, seeds: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of two mean ranks: q sqrt(k (k + 1) / (6 S)), over all pairs of k methods.

    q is the studentised range's quantile for k groups and infinite degrees of freedom, over sqrt(2) (Demsar 2006, JMLR
    7:1, section 3.2.2 and table 5). NaN for k < 2 or S < 2.
    """
    if methods < 2 or seeds < 2:
        return float("nan")
    q = distributions.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * seeds)))
