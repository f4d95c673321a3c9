"""Statistics of the comparison, as pure functions on arrays: intervals, paired differences, what more runs would give.

A *unit* is what is drawn at random to make a test set: a patient with all of his images, or an image where patients are
not known. Two sources of chance count: the runs (initialisation, order, fold) and the units. With theta_s a metric's
value in run s, s^2 the sample variance of the S runs' values, and psi_su the influence of unit u on theta_s
(delete-one-unit jackknife, Efron & Stein 1981), the mean over runs has the variance

    Var = s^2 / S + C,    C = max(0, mean over s != t of sum_u psi_su psi_tu),

which is unbiased for new runs and new units: the noise of units that runs share does not show in s^2, so it is added as
C, the mean covariance of two runs (Obuchowski & Rockette 1995, Commun. Stat. Simul. Comput. 24:285, with runs for
readers and images for cases; the jackknife covariance as in Hillis et al. 2005). One formula serves every design. With
one test set C is the images' part. In one round of k folds no two runs share a unit: C = 0, and s^2 holds the units'
noise. In repeated folds runs of different repeats share units, and C is estimated from those pairs.

The error of the mean is taken as sqrt(s^2 / S) T + sqrt(C) Z, T Student's t with S - 1 degrees of freedom, Z normal:
few runs estimate s^2 poorly, many units C well (the Behrens-Fisher distribution); without C it is Student's t. A
method's own interval is made on the logit scale: near an accuracy of 1 the symmetric one reaches beyond 1 and covers
too little. A single run leaves the units' part alone, and nothing is then said about other runs.

That folds share training images is not counted: no unbiased variance exists for it (Bengio & Grandvalet 2004, JMLR
5:1089). `corrected_interval` is the customary remedy, printed beside as a sensitivity analysis; docs/statistics.md says
how well both cover.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, ndtr, ndtri, stdtr

LEVEL = 0.95
POWER = 0.8
MOST_REPEATS = 100  # that `Estimate.repeats_needed` tells of
RESAMPLES = 9999  # of the swap test

_BLOCK = 4_000_000  # counts held at once, so that 10 000 test images need no gigabyte
_LOG_W = np.linspace(-44.0, 8.0, 417)  # log of a chi-squared variable: the trapezoid rule's nodes


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, or over runs' paired differences, and what makes it uncertain.

    mean: of the S values. runs: S. run_var: s^2, NaN with one run. image_var: C; with one run the variance of its
    value. unit_var: sum_u (mean_s psi_su)^2, the variance over units with the trained networks taken as given. units:
    how many units the tests of all runs have.
    """

    mean: float
    runs: int
    run_var: float
    image_var: float
    unit_var: float
    units: int

    @property
    def se(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.image_var + (self.run_var / self.runs if self.runs > 1 else 0.0)))

    def below(self, x: float) -> float:
        """P(error of the mean <= x), from the error's distribution above."""
        run_part = self.run_var / self.runs if self.runs > 1 else 0.0
        if not np.isfinite(run_part + self.image_var):
            return float("nan")
        if run_part + self.image_var == 0:
            return 0.5 if x == 0 else float(x > 0)
        if run_part == 0:
            return float(ndtr(x / np.sqrt(self.image_var)))
        if self.image_var == 0:
            return float(stdtr(self.runs - 1, x / np.sqrt(run_part)))
        # T = Z / sqrt(W / df) with W chi-squared: given W the error is normal.
        df = self.runs - 1
        density = np.exp(df / 2 * (_LOG_W - np.log(2)) - np.exp(_LOG_W) / 2 - gammaln(df / 2))
        given = ndtr(x / np.sqrt(self.image_var + run_part * df * np.exp(-_LOG_W)))
        return float(np.sum(density * given) / np.sum(density))

    def half_width(self, level: float = LEVEL) -> float:
        """q with P(|error| <= q) = level."""
        if not self.se > 0:  # zero or NaN
            return self.se
        high = self.se
        while self.below(high) < (1 + level) / 2:
            high *= 2
        return float(brentq(lambda q: self.below(q) - (1 + level) / 2, 0, high, xtol=1e-12, rtol=1e-10))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """mean -+ q: for a difference, which has no bounds nearby."""
        q = self.half_width(level)
        return self.mean - q, self.mean + q

    def share_interval(self, level: float = LEVEL, *, counted: Sequence[int] = ()) -> tuple[float, float]:
        """The interval of a metric between 0 and 1: logit(mean) -+ q / (mean (1 - mean)), transformed back.

        At a mean of 0 or 1 there is no spread to go by. Where the metric is the mean of K shares of units the limit is
        then the binomial one of the smallest share (Clopper & Pearson 1934), as the others may all be 1: 1 - (1 - a^(1
        / n)) / K, with a = (1 - level) / 2 and n units. For what is no share of units it cannot be said: NaN.

        Args:
            counted: units of each share: one number for an accuracy, one a class for balanced accuracy.
        """
        if not 0 < self.mean < 1:
            limit = float("nan")
            if len(counted) and self.mean in (0, 1):
                limit = 1 - (1 - ((1 - level) / 2) ** (1 / min(counted))) / len(counted)
            return (limit, 1.0) if self.mean == 1 else (0.0, 1 - limit) if self.mean == 0 else (limit, limit)
        q = self.half_width(level) / (self.mean * (1 - self.mean))
        return float(expit(logit(self.mean) - q)), float(expit(logit(self.mean) + q))

    def interval_over_runs(self, level: float = LEVEL) -> tuple[float, float]:
        """`interval`; NaN with one run, of which nothing is said about others."""
        return self.interval(level) if self.runs > 1 else (float("nan"), float("nan"))

    def p_value(self) -> float:
        """Two-sided p of a mean of zero over new runs and units: below 1 - level where the interval excludes zero."""
        return 2 * self.below(-abs(self.mean)) if self.mean else 1.0

    def trained_interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The normal interval over new units alone: it speaks of these trained networks, all their images pooled."""
        q = ndtri((1 + level) / 2) * np.sqrt(self.unit_var)
        return float(self.mean - q), float(self.mean + q)

    def repeated(self, repeats: int, folds: int) -> "Estimate":
        """What to expect of this estimate with so many repeats of all the folds, on the same images.

        A run's variance is v = s^2 + C. Runs of one repeat share no unit, so only the (S - k) / (S - 1) of all pairs
        that are of different repeats have a covariance, c = C (S - 1) / (S - k). With R repeats of k folds the mean
        has the variance v / (R k) + (1 - 1 / R) c. With k = 1 every run is a repeat: s^2 / R + C. Of a single repeat
        (runs = folds) c is not known.
        """
        covariance = self.image_var * (self.runs - 1) / (self.runs - folds)
        runs = repeats * folds
        image_var = covariance * (runs - folds) / (runs - 1) if runs > 1 else 0.0
        run_var = self.run_var + self.image_var - image_var
        return Estimate(self.mean, runs, max(0.0, run_var), image_var, self.unit_var, self.units)

    def power(self, difference: float, level: float = LEVEL) -> float:
        """Probability that an estimate of these variances shows a true difference: its interval lies above zero.

        P(T' > t_(level, df)), T' noncentral t with noncentrality difference / se and Satterthwaite's df = se^4 / ((s^2
        / S)^2 / (S - 1)), which is S - 1 without C (Cohen 1988, ch. 2; Satterthwaite 1946). NaN with one run.
        """
        if self.runs < 2 or not self.se > 0:
            return float("nan")
        df = min(self.se**4 / ((self.run_var / self.runs) ** 2 / (self.runs - 1)), 1e6) if self.run_var else 1e6
        limit, centre = distributions.t.ppf((1 + level) / 2, df), difference / self.se
        # Far beyond the limit the noncentral distribution is not computed.
        return float(distributions.nct.sf(limit, df, centre)) if centre < 30 else float(centre > limit)

    def repeats_needed(self, difference: float, folds: int, level: float = LEVEL) -> float:
        """The fewest repeats of all folds that show a true difference with power `POWER`, on the same images.

        Infinite where `MOST_REPEATS` fall short: the images are too few. NaN with a single repeat, which does not say
        how alike others would be.
        """
        if self.runs <= folds or not np.isfinite(self.se):
            return float("nan")
        fewest = 1 if folds > 1 else 2  # of which a spread between runs can be seen
        enough = (
            n for n in range(fewest, MOST_REPEATS + 1) if self.repeated(n, folds).power(difference, level) >= POWER
        )
        # With many repeats only what the runs share is left: where the most fall short the images are too few.
        if not self.repeated(MOST_REPEATS, folds).power(difference, level) >= POWER:
            return float("inf")
        return float(next(enough))


def jackknife(
    draw: Callable[[np.ndarray], np.ndarray], units: np.ndarray, n_units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Metrics of one test, and each unit's influence on them.

    psi_u = sqrt((G - 1) / G) (mean over units of theta_(-u), minus theta_(-u)), where theta_(-u) leaves out the unit's
    images and G is how many units the test has; sum_u psi_u^2 is the jackknife variance.

    Args:
        draw: image counts (B, N) -> values (B, ...), see `pipelines.evidence.measures`.
        units: the unit of each image, integers (N,) in 0..n_units-1; equal numbers in two tests are one unit.

    Returns:
        values (...), influence (n_units, ...): zero for units that the test does not have; NaN where leaving out a unit
        leaves a metric undefined, and with a single unit.
    """
    values, present = draw(np.ones((1, len(units)), np.int64))[0], np.unique(units)
    if len(present) < 2:
        return values, influence(np.full((len(present), *values.shape), np.nan), units, n_units)
    step = max(1, _BLOCK // len(units))
    blocks = [present[start : start + step] for start in range(0, len(present), step)]
    without = np.concatenate([draw((units != block[:, None]).astype(np.int32)) for block in blocks])
    return values, influence(without, units, n_units)


def influence(without: np.ndarray, units: np.ndarray, n_units: int) -> np.ndarray:
    """The influence of each unit, as `jackknife` gives it, by what metrics are without each of the test's units: (G,
    ...), in the order of their numbers.
    """
    present = np.unique(units)
    found = np.zeros((n_units, *without.shape[1:]))
    found[present] = (without.mean(0) - without) * np.sqrt((len(present) - 1) / len(present))
    return found


def estimate(values: np.ndarray, influence: np.ndarray, units: int, *, grid: float = 0.0) -> Estimate:
    """The mean over runs with its two parts of variance.

    Args:
        values: a metric, or a paired difference of two, run by run: (S,).
        influence: of each unit on each value: (S, U).
        units: how many units there are in the tests.
        grid: the step in which values move, 1 / N for an accuracy on N images. Variances below what it can resolve are
            raised (s^2 to grid^2 / 12, the variance of rounding; one run's to grid^2, that of a single image), or two
            runs that agree by rounding would leave no uncertainty at all.
    """
    values, influence = np.asarray(values, float), np.asarray(influence, float)
    runs, own = len(values), float(np.sum(influence**2))
    if runs == 1:
        own = max(own, grid**2)
        return Estimate(float(values[0]), 1, float("nan"), own, own, units)
    shared = (float(np.sum(influence.sum(0) ** 2)) - own) / (runs * (runs - 1))
    # Of units that no two runs share only rounding is left.
    shared = 0.0 if shared < 1e-12 * own else shared
    between = max(float(values.var(ddof=1)), grid**2 / 12)
    return Estimate(float(values.mean()), runs, between, shared, float(np.sum(influence.mean(0) ** 2)), units)


def corrected_interval(values: np.ndarray, test_share: float, level: float = LEVEL) -> tuple[float, float]:
    """The corrected resampled t interval of the mean of values over (repeated) folds: mean -+ t sqrt((1/S + n2/n1)
    s^2).

    Nadeau & Bengio 2003, Machine Learning 52:239; for repeated folds Bouckaert & Frank 2004, PAKDD. NaN with one run.

    Args:
        values: (S,) paired differences.
        test_share: n2 / n1, test images over training images.
    """
    runs = len(values)
    if runs < 2:
        return float("nan"), float("nan")
    reach = distributions.t.ppf((1 + level) / 2, runs - 1) * np.sqrt((1 / runs + test_share) * np.var(values, ddof=1))
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def swap_p(ours: np.ndarray, theirs: np.ndarray, resamples: int = RESAMPLES) -> float:
    """Permutation p of no difference between two methods' trained networks: their results swap unit by unit.

    Under the null hypothesis that the two methods are exchangeable on every unit, its part of the mean difference is as
    likely to have the other sign. A unit (a patient, all runs) swaps as a whole, which respects pairing and clusters.
    The networks are taken as given: a run's luck, common to all of its images, counts as a difference, so this p guards
    the interval over runs and decides nothing on its own.

    Args:
        ours, theirs: each unit's part of the metric's mean over runs, (U,).
    """
    differ = ours != theirs
    if not differ.any():
        return 1.0
    found = distributions.permutation_test(
        (ours[differ], theirs[differ]), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples",
        n_resamples=resamples, batch=1000, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """p values adjusted for a family of m tests (Holm 1979), and the confidence level that belongs to each.

    Adjusted: max over j <= i of min(1, (m - j + 1) p_(j)), p ascending. With a = 1 - level, Holm compares p_(j) with
    a / (m - j + 1) until the first that is larger; all from there on stay at its step. An interval of level 1 minus the
    step excludes zero exactly where Holm rejects. A NaN is no test and stays NaN.
    """
    p = np.asarray(p, float)
    adjusted, levels = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1)
    rejected = int((adjusted[order] < 1 - level).sum())
    levels[order] = 1 - (1 - level) / np.maximum(left, len(order) - rejected)
    return adjusted, levels
