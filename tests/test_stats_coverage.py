"""Simulations with a known truth: intervals cover, p values are uniform under no difference, tests keep their size.

A made-up world: image i of a patient is got right by seed s of a method with probability sigma(shift + seed effect +
patient effect + image effect), effects normal. Seeds, patients and images are new in every trial. Limits on rates leave
3.3 standard errors of the trials' number.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr
from scipy.stats import kstest

from pipelines.evidence import stats

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects on the logit scale; images: a test set's; alike: images a patient."""

    seeds: int
    shared: bool
    images: int = 120
    alike: int = 1
    shift: float = 1.2
    seed: float = 0.3
    patient: float = 0.0
    image: float = 1.5

    def truth(self, more: float = 0.0) -> float:
        """The accuracy behind the tests, `more` on the logit scale; the effects' sum is normal."""
        spread = np.sqrt(self.seed**2 + self.patient**2 + self.image**2)
        return float(WEIGHTS @ expit(self.shift + more + spread * NODES) / WEIGHTS.sum())

    def units(self) -> list[np.ndarray]:
        own = np.arange(self.images) // self.alike
        return [own if self.shared else own + s * (1 + own[-1]) for s in range(self.seeds)]

    def draw(self, rng, methods=1, common=0.7, more=(0.0, 0.0)):
        """Tests of each method. `common`: share of the variance of patients' and images' effects that both methods have."""
        rows = 1 if self.shared else self.seeds
        patients = self.images // self.alike

        def effects():
            of_patient = self.patient * rng.normal(size=(rows, patients)).repeat(self.alike, 1)
            return of_patient + self.image * rng.normal(size=(rows, self.images))

        both = effects()
        drawn = []
        for method in range(methods):
            mixed = np.sqrt(common) * both + np.sqrt(1 - common) * effects() if methods > 1 else both
            chance = expit(self.shift + more[method] + self.seed * rng.normal(size=(self.seeds, 1)) + mixed)
            drawn.append([graded(row) for row in rng.random((self.seeds, self.images)) < chance])
        return drawn


def graded(correct):
    return np.zeros(len(correct), int), np.eye(2)[np.where(correct, 0, 1)]


def within(rate, aim, trials):
    return abs(rate - aim) <= 3.3 * np.sqrt(aim * (1 - aim) / trials)


WORLDS = {
    "five seeds, one test set": World(5, True),
    "five folds": World(5, False),
    "ten seeds, one test set, few errors": World(10, True, shift=3.2),
    "five folds, few errors": World(5, False, shift=3.2),
    "five seeds, one test set, patients": World(5, True, 150, alike=3, patient=1.5, image=0.5),
    "five folds, patients": World(5, False, 150, alike=3, patient=1.5, image=0.5),
    "five seeds alike, one test set": World(5, True, seed=0.0),
    "five seeds alike, folds": World(5, False, seed=0.0),
    "five seeds far apart, one test set": World(5, True, seed=0.6, image=0.5),
    "three seeds, one test set": World(3, True, seed=0.5),
    "three folds": World(3, False, seed=0.5),
    "one seed, patients": World(1, True, 300, alike=3, seed=0.0, patient=1.5, image=0.5),
}


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth(name):
    """95 % +- 2 points."""
    world, rng, trials = WORLDS[name], np.random.default_rng(1), 1000
    truth, units, held = world.truth(), world.units(), 0
    for _ in range(trials):
        low, high = stats.interval(world.draw(rng)[0], units=units)
        held += low <= truth <= high
    assert 0.93 <= held / trials <= 0.97, held / trials


def test_two_seeds_err_on_the_wide_side():
    for world in (World(2, True), World(2, True, seed=0.8, image=0.5), World(2, False)):
        rng, trials = np.random.default_rng(2), 800
        truth, units, held = world.truth(), world.units(), 0
        for _ in range(trials):
            low, high = stats.interval(world.draw(rng)[0], units=units)
            held += low <= truth <= high
        assert 0.93 <= held / trials <= 0.99, (world, held / trials)


def test_images_alike_within_patients_counted_as_independent_cover_too_little():
    world, rng = WORLDS["one seed, patients"], np.random.default_rng(3)
    limits = [stats.interval(world.draw(rng)[0], units=[np.arange(world.images)]) for _ in range(400)]
    assert np.mean([low <= world.truth() <= high for low, high in limits]) < 0.9


@pytest.mark.parametrize("shared", [True, False])
def test_intervals_of_auc_cover_the_truth(shared):
    """Binormal scores of two classes, d' varying by seed: AUC = E Phi(d' / sqrt 2)."""
    rng, trials, seeds, n = np.random.default_rng(4), 400, 5, 80
    truth = ndtr(1.6 / np.sqrt(2 + 0.25**2))
    labels, held = np.repeat([0, 1], n // 2), 0
    units = [np.arange(n) + (0 if shared else n * s) for s in range(seeds)]
    for _ in range(trials):
        common = rng.normal(size=n)
        tests = []
        for _ in range(seeds):
            noise = np.sqrt(0.7) * (common if shared else rng.normal(size=n)) + np.sqrt(0.3) * rng.normal(size=n)
            score = expit(noise + labels * rng.normal(1.6, 0.25))
            tests.append((labels, np.c_[1 - score, score]))
        low, high = stats.interval(tests, "macro_auc", units=units)
        held += low <= truth <= high
    assert 0.92 <= held / trials <= 0.98, held / trials  # 400 trials: one point more each way


ALIKE = {
    "five seeds, one test set": World(5, True),
    "five folds": World(5, False),
    "five folds, patients": World(5, False, 150, alike=3, patient=1.5, image=0.5),
    "ten seeds, one test set": World(10, True, seed=0.2),
}


@pytest.mark.parametrize("name", ALIKE)
def test_p_values_are_uniform_under_no_difference(name):
    world, rng, trials = ALIKE[name], np.random.default_rng(5), 800
    units = world.units()
    p = np.array([stats.paired_difference(*world.draw(rng, 2), units=units).p_value() for _ in range(trials)])
    for level in (0.01, 0.05, 0.10):
        assert within(np.mean(p < level), level, trials), (level, np.mean(p < level))
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("shared", "alike"), [(True, 1), (True, 3), (False, 3)])
def test_swap_p_is_uniform_for_networks_alike(shared, alike):
    """No seed effects: what is left is exchangeable patient by patient."""
    world = World(3, shared, 120, alike, seed=0.0, patient=1.0 * (alike > 1))
    rng, trials, units, p = np.random.default_rng(6), 1000, world.units(), []
    for trial in range(trials):
        first, second = (np.array([1 - test[1].argmax(1) for test in method]) for method in world.draw(rng, 2))
        parts = np.zeros(1 + units[-1][-1])
        for own, a, b in zip(units, first, second):
            np.add.at(parts, own, (a - b) / first.size)
        p.append(stats.swap_p(parts, draws=199, seed=trial))
    for level in (0.01, 0.05, 0.10):
        # Differences come in steps, and equal ones count: a little less than the level.
        assert np.mean(np.array(p) <= level) <= level + 3.3 * np.sqrt(level * (1 - level) / trials)
    assert np.mean(np.array(p) <= 0.10) > 0.06


@pytest.mark.parametrize("shared", [True, False])
def test_equivalence_is_claimed_at_the_margin_in_at_most_five_per_cent(shared):
    margin, world = 0.04, World(5, shared, 400, seed=0.1)
    base = world.truth()
    more = brentq(lambda x: world.truth(x) - base - margin, 0, 2)
    rng, trials, units = np.random.default_rng(7), 600, world.units()
    claimed = {0.0: 0, more: 0}
    for shift in claimed:
        for _ in range(trials if shift else 100):
            first, second = world.draw(rng, 2, common=0.9, more=(shift, 0.0))
            claimed[shift] += stats.paired_difference(first, second, units=units).equivalence_p(margin) < 0.05
    assert claimed[more] / trials <= 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / trials), claimed
    assert claimed[0.0] / 100 > 0.3  # and where there is no difference it can be shown


def test_power_is_reached_with_the_seeds_needed():
    rng, spread, difference = np.random.default_rng(8), 0.015, 0.01
    seeds = int(stats.Estimate(0.0, 5, spread**2, 0.0, 0.0, 100).seeds_needed(difference))
    for n, low, high in ((seeds, 0.76, 0.84), (seeds // 2, 0.3, 0.7)):
        found = [
            stats.estimate(rng.normal(difference, spread, n), np.zeros((n, 1)), 1).p_value() < 0.05 for _ in range(1500)
        ]
        assert low <= np.mean(found) <= high, (n, np.mean(found))


def test_probability_of_improvement_is_that_of_one_run():
    """Normal differences of known chance to be positive, seeds and images both varying."""
    rng, seeds, images, mean, of_seed, of_image = np.random.default_rng(9), 10, 200, 0.02, 0.02, 0.3
    truth = ndtr(mean / np.sqrt(of_seed**2 + of_image**2 / images))
    found = []
    for _ in range(400):
        image = rng.normal(0, of_image, images)
        values = mean + image.mean() + rng.normal(0, of_seed, seeds)
        influence = np.tile((image - image.mean()) / images, (seeds, 1))
        found.append(stats.estimate(values, influence, images).improvement())
    assert logit(np.mean(found)) == pytest.approx(logit(truth), abs=0.25)
