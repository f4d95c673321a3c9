"""Simulations with a known truth: intervals cover, p values are uniform under no difference, power is what is said.

A made-up world: image i of a patient is got right by run s of a method with probability sigma(shift + run effect +
patient effect + image effect), effects normal. Runs, patients and images are new in every trial. Limits on rates leave
3.3 standard errors of the trials' number. Learners that are really trained are in test_learners.py.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import expit, logit, ndtr
from scipy.stats import kstest

from pipelines.evidence import outcomes, stats
from tests.evidence.made import graded, outcome

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects on the logit scale; images: a test set's; alike: images a patient; folds: of
    one repeat, 1 for one test set that all runs share.
    """

    runs: int
    folds: int
    images: int = 120
    alike: int = 1
    shift: float = 1.2
    run: float = 0.3
    patient: float = 0.0
    image: float = 1.5

    def truth(self, more: float = 0.0) -> float:
        """The accuracy behind the tests, `more` on the logit scale; the effects' sum is normal."""
        spread = np.sqrt(self.run**2 + self.patient**2 + self.image**2)
        return float(WEIGHTS @ expit(self.shift + more + spread * NODES) / WEIGHTS.sum())

    def draw(self, rng, methods=1, common=0.7, more=(0.0, 0.0)):
        """Outcomes of each method. `common`: share of the variance of patients' and images' effects that both have."""
        n = self.folds * self.images
        patients = np.arange(n) // self.alike

        def effects():
            return self.patient * rng.normal(size=n)[patients] + self.image * rng.normal(size=n)

        both, orders = effects(), [rng.permutation(n // self.alike) for _ in range(-(-self.runs // self.folds))]
        drawn = []
        for method in range(methods):
            mixed = np.sqrt(common) * both + np.sqrt(1 - common) * effects() if methods > 1 else both
            chance = expit(self.shift + more[method] + self.run * rng.normal(size=(self.runs, 1)) + mixed)
            right = rng.random(chance.shape) < chance
            own = []
            for seed in range(self.runs):
                repeat, fold = divmod(seed, self.folds)
                per = self.images // self.alike
                tested = np.isin(patients, orders[repeat][fold * per : (fold + 1) * per])
                test = graded(right[seed, tested])
                own.append(outcome(*test, seed, patients[tested], np.flatnonzero(tested), n // self.alike))
            drawn.append(own)
        return drawn


def interval(tested):
    return outcomes.mean(tested, "accuracy").share_interval(counted=outcomes.counted(tested, "accuracy"))


def difference(first, second):
    return outcomes.difference(list(zip(first, second)), "accuracy")


def covered(world, seed, trials, limits=interval):
    rng, truth, held = np.random.default_rng(seed), world.truth(), 0
    for _ in range(trials):
        low, high = limits(world.draw(rng)[0])
        held += low <= truth <= high
    return held / trials


def within(rate, aim, trials):
    return abs(rate - aim) <= 3.3 * np.sqrt(aim * (1 - aim) / trials)


WORLDS = {
    "five runs, one test set": World(5, 1),
    "five folds": World(5, 5),
    "five folds, two repeats, patients": World(10, 5, 60, alike=3, patient=1.5, image=0.5),
    "two folds, three repeats": World(6, 2),
    "ten runs, one test set, few errors": World(10, 1, shift=3.2),
    "five folds, few errors": World(5, 5, shift=3.2),
    "five runs, one test set, patients": World(5, 1, 150, alike=3, patient=1.5, image=0.5),
    "five runs alike, one test set": World(5, 1, run=0.0),
    "five runs far apart, one test set": World(5, 1, run=0.6, image=0.5),
    "three folds": World(3, 3, run=0.5),
    "one run, patients": World(1, 1, 300, alike=3, run=0.0, patient=1.5, image=0.5),
}


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth(name):
    """95 % with 3.3 standard errors of 800 trials, and half a point more on the wide side."""
    assert 0.925 <= covered(WORLDS[name], 1, 800) <= 0.98


@pytest.mark.parametrize("world", [World(2, 1), World(2, 1, run=0.8, image=0.5), World(2, 2)], ids=str)
def test_two_runs_err_on_the_wide_side(world):
    assert 0.925 <= covered(world, 2, 600) <= 0.99


def test_images_alike_within_patients_counted_as_independent_cover_too_little():
    def by_image(tested):
        return interval([outcome(own.labels, own.probabilities, indices=own.indices) for own in tested])

    assert covered(WORLDS["one run, patients"], 3, 400, by_image) < 0.9


@pytest.mark.parametrize("shared", [True, False])
def test_intervals_of_auc_cover_the_truth(shared):
    """Binormal scores of two classes, d' varying by run: AUC = E Phi(d' / sqrt 2)."""
    rng, trials, runs, n = np.random.default_rng(4), 300, 5, 80
    truth = ndtr(1.6 / np.sqrt(2 + 0.25**2))
    labels, held = np.repeat([0, 1], n // 2), 0
    for _ in range(trials):
        common = rng.normal(size=n)
        tested = []
        for seed in range(runs):
            noise = np.sqrt(0.7) * (common if shared else rng.normal(size=n)) + np.sqrt(0.3) * rng.normal(size=n)
            score = expit(noise + labels * rng.normal(1.6, 0.25))
            own = np.arange(n) + (0 if shared else n * seed)
            tested.append(outcome(labels, np.c_[1 - score, score], seed, indices=own, n_units=n * runs))
        low, high = outcomes.mean(tested, "auc").share_interval()
        held += low <= truth <= high
    assert 0.91 <= held / trials <= 0.985, held / trials


ALIKE = {
    "five runs, one test set": World(5, 1),
    "five folds": World(5, 5),
    "five folds, two repeats, patients": World(10, 5, 60, alike=3, patient=1.5, image=0.5),
}


@pytest.mark.parametrize("name", ALIKE)
def test_p_values_are_uniform_under_no_difference(name):
    world, rng, trials = ALIKE[name], np.random.default_rng(5), 600
    p = np.array([difference(*world.draw(rng, 2)).p_value() for _ in range(trials)])
    for level in (0.01, 0.05, 0.10):
        assert within(np.mean(p < level), level, trials), (level, np.mean(p < level))
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("folds", "alike"), [(1, 1), (3, 3)])
def test_swap_p_is_uniform_for_networks_alike(folds, alike):
    """No run effects: what is left is exchangeable patient by patient."""
    world = World(3, folds, 120, alike, run=0.0, patient=1.0 * (alike > 1))
    rng, trials, p = np.random.default_rng(6), 400, []
    for _ in range(trials):
        sides = (np.mean([own.parts("accuracy") for own in method], axis=0) for method in world.draw(rng, 2))
        p.append(stats.swap_p(*sides, resamples=199))
    for level in (0.05, 0.10):
        # Differences come in steps, and equal ones count: a little less than the level.
        assert np.mean(np.array(p) <= level) <= level + 3.3 * np.sqrt(level * (1 - level) / trials)
    assert np.mean(np.array(p) <= 0.10) > 0.04


def test_a_family_of_no_differences_is_seldom_called_and_power_grows_with_repeats():
    """Holm over five contrasts: at most one family in twenty errs; repeats find a true gain of 3.7 points."""
    rng, wrong, trials = np.random.default_rng(7), 0, 150
    world = World(5, 5, 60, alike=1, image=1.0, run=0.15)
    for _ in range(trials):
        first, *others = world.draw(rng, 6, more=(0.0,) * 6)
        wrong += (stats.holm([difference(first, other).p_value() for other in others])[0] < 0.05).any()
    assert wrong / trials <= 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / trials)
    more = logit(0.94) - logit(0.903)
    power = {}
    for repeats in (1, 2):
        world, found = World(5 * repeats, 5, 200, image=1.0, run=0.12, shift=2.6), 0
        for _ in range(60):
            p = difference(*world.draw(rng, 2, common=0.9, more=(more, 0.0))).p_value()
            found += p < 0.05 / 8  # the strictest step of a family of eight
        power[repeats] = found / 60
    assert power[2] > power[1] + 0.25, power


def test_power_is_reached_with_the_repeats_needed():
    rng, difference_, level = np.random.default_rng(8), 0.02, 0.99
    k, b, image, rest, n = 5, 0.0002, 0.02, 0.04, 200

    def drawn(repeats):
        """Runs' mean differences, and influences, of n images in k folds: as in test_stats, by hand."""
        own, values, influence = rng.normal(difference_, image**0.5, n), [], []
        for _ in range(repeats):
            this = own + rng.normal(0, rest**0.5, n)
            for fold in np.split(rng.permutation(n), k):
                values.append(this[fold].mean() + rng.normal(0, b**0.5))
                psi = np.zeros(n)
                psi[fold] = (this[fold] - this[fold].mean()) / np.sqrt(len(fold) * (len(fold) - 1))
                influence.append(psi)
        return stats.estimate(np.array(values), np.array(influence), n)

    # A world in which the images suffice: so many are drawn that the shared part is small beside the gain.
    image, rest = 0.004, 0.03
    asked = np.median([drawn(3).repeats_needed(difference_, k, level) for _ in range(40)])
    assert 1 < asked < 20
    rates = {}
    for repeats in (int(asked), max(1, int(asked) // 2)):
        rates[repeats] = np.mean([drawn(repeats).interval(level)[0] > 0 for _ in range(300)])
    assert 0.7 <= rates[int(asked)] <= 0.92 and min(rates.values()) < 0.75, (asked, rates)
