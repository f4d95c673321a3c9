"""Stability of curves: known curves, invariances, simulated noise of known size, coverage of the intervals."""

import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import definitions, schemas, stability, tables

RNG = np.random.default_rng


def row(*values):
    return np.array([values], float)


def approach(epochs=20, final=0.9, pace=3.0):
    return final - 0.5 * np.exp(-np.arange(epochs) / pace)


@pytest.mark.parametrize(("epochs", "first"), [(1, 1), (2, 1), (8, 3), (10, 3), (11, 4), (20, 6), (100, 30)])
def test_warm_up_is_three_tenths(epochs, first):
    assert stability.warm_up(epochs) == first


def test_jitter_of_lines_is_zero_and_of_a_zigzag_known():
    line = 0.3 + 0.02 * np.arange(20)
    assert stability.jitter(line[None]) == pytest.approx([0], abs=1e-12)
    zigzag = line + 0.01 * (-1) ** np.arange(20)  # second differences of +-0.04
    assert stability.jitter(zigzag[None]) == pytest.approx([0.04 / np.sqrt(6)])
    assert stability.jitter(approach()[None])[0] < 0.004  # smooth, though the curvature does not vanish


def test_jitter_leaves_warm_up_out():
    curve = np.full(20, 0.8)
    curve[[1, 3]] = 0.2
    assert stability.jitter(curve[None]) == 0 and stability.drawdown(curve[None]) == pytest.approx(0.6)


@pytest.mark.parametrize("sd", [0.002, 0.05])
def test_jitter_recovers_the_sd_of_white_noise_on_a_trend(sd):
    curves = np.linspace(0.2, 0.8, 4000) + RNG(0).normal(0, sd, (5, 4000))
    assert stability.jitter(curves) == pytest.approx(np.full(5, sd), rel=0.06)
    assert stability.spread(curves) == pytest.approx(sd, rel=0.03)


def test_spread_is_the_sd_between_seeds():
    offsets = np.array([0.01, 0.02, 0.06])
    curves = approach() + offsets[:, None]
    assert stability.spread(curves) == pytest.approx(offsets.std(ddof=1))
    curves[0, :6] = 0  # warm-up does not count
    assert stability.spread(curves) == pytest.approx(offsets.std(ddof=1))
    assert stability.spread(np.tile(approach(), (4, 1))) == 0
    assert np.isnan(stability.spread(curves[:1]))


def test_spread_does_not_depend_on_the_number_of_seeds():
    found = {n: np.mean([stability.spread(RNG([n, i]).normal(size=(n, 300))) for i in range(20)]) for n in (2, 5, 20)}
    assert list(found.values()) == pytest.approx([1, 1, 1], abs=0.03)


def test_drawdown():
    assert stability.drawdown(row(0.5, 0.8, 0.6, 0.7, 0.9, 0.85)) == pytest.approx([0.2])
    assert stability.drawdown(row(0.1, 0.2, 0.2, 0.3)) == 0
    assert stability.drawdown(row(0.9, 0.6, 0.3)) == pytest.approx([0.6])


def test_epochs_to_final():
    assert stability.epochs_to_final(row(0.5, 0.85, 0.86, 0.9, 0.9, 0.9)) == 3  # 0.95 * 0.9 = 0.855
    assert stability.epochs_to_final(row(0.9, 0.2, 0.9, 0.9, 0.9)) == 1  # reached, if not kept
    assert stability.epochs_to_final(np.full((2, 5), 0.5)).tolist() == [1, 1]


def test_loss_spikes():
    assert stability.loss_spikes(row(2, 1, 0.5, 0.4, 0.3)) == 0
    assert stability.loss_spikes(row(1, 1, 1, 3, 1, 1, 2, 1.2)) == 2
    assert stability.loss_spikes(row(1, 1.4, 1.4, 1.4)) == 0  # not by half
    assert stability.loss_spikes(row(0.4, 0.002, 0.002, 0.002, 0.04)) == 0  # twenty times nothing is nothing
    assert stability.loss_spikes(row(0.5, 1, 1, 1)) == 1  # a loss that stays up has risen once


def all_of(curves):
    return {name: value for name, (value, *_) in stability.measures(curves, 2 - curves).items()}


def test_invariances():
    curves = approach() + RNG(1).normal(0, 0.02, (4, 20))
    plain, higher, doubled = all_of(curves), all_of(curves + 0.05), all_of(2 * curves)
    for name in ("spread", "jitter", "drawdown"):
        assert higher[name] == pytest.approx(plain[name]) and doubled[name] == pytest.approx(2 * plain[name])
    assert doubled["epochs_to_final"] == plain["epochs_to_final"]
    turned = all_of(curves[::-1])
    assert turned == pytest.approx(plain)
    tilted = curves + 0.01 * np.arange(20)
    assert stability.jitter(tilted) == pytest.approx(stability.jitter(curves))


def test_more_noise_is_less_stable():
    noise = RNG(2).normal(0, 1, (5, 20))
    small, large = all_of(approach() + 0.005 * noise), all_of(approach() + 0.05 * noise)
    assert all(large[name] > small[name] for name in ("spread", "jitter", "drawdown"))


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("seeds", [1, 3])
def test_short_curves_have_no_stability(epochs, seeds):
    curves = RNG(0).random((seeds, epochs))
    for value, low, high, n in stability.measures(curves, curves).values():
        assert np.isnan([value, low, high]).all() and n == 0


def test_curves_of_few_epochs_have_no_jitter():
    curves = RNG(0).random((3, 4))  # two of the four are warm-up
    found = stability.measures(curves, curves)
    assert np.isnan(found["jitter"][0]) and found["drawdown"][0] > 0 and found["spread"][0] > 0
    assert stability.measures(RNG(0).random((3, 5)), curves)["jitter"][0] > 0


def test_seeds_with_a_missing_epoch_are_left_out():
    curves = approach() + RNG(3).normal(0, 0.02, (4, 20))
    broken = curves.copy()
    broken[1, 12] = np.nan
    found, expected = stability.measures(broken, broken), stability.measures(curves[[0, 2, 3]], curves[[0, 2, 3]])
    assert found == expected and {n for *_, n in found.values()} == {3}
    nothing = stability.measures(np.full((2, 20), np.nan), np.full((2, 20), np.nan))
    assert all(np.isnan([*numbers]).all() and n == 0 for *numbers, n in nothing.values())


def test_one_seed_has_values_but_no_intervals_other_than_of_counts():
    curves = (approach() + RNG(3).normal(0, 0.02, 20))[None]
    found = stability.measures(curves, 1 - curves)
    assert np.isnan(found["spread"][0]) and found["jitter"][0] > 0
    assert all(np.isnan(found[name][1:3]).all() for name in found if name != "loss_spikes")
    assert found["loss_spikes"] == (0, 0, pytest.approx(-np.log(0.025)), 1)  # P(none) = exp(-rate)


def test_seeds_that_agree_have_no_interval():
    found = stability.measures(np.tile(approach(), (3, 1)), np.tile(1 - approach(), (3, 1)))
    assert all(np.isnan(found[name][1:3]).all() for name in ("spread", "jitter", "drawdown", "epochs_to_final"))


def test_intervals_stay_where_values_can_be():
    low, high = stability.mean_interval(np.array([1.0, 9.0]), lowest=1, highest=20)
    assert (low, high) == (1, 20)
    assert stability.mean_interval(np.array([2.0, 4.0, 6.0])) == pytest.approx(
        (0, 4 + 4.303 * 2 / np.sqrt(3)), abs=1e-2
    )
    assert stability.count_interval(np.array([0.0] * 5)) == pytest.approx((0, 0.7378), abs=1e-3)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize(("kept", "at_least", "at_most"), [(1.0, 0.935, 0.965), (0.5, 0.94, 1), (0.0, 0.94, 1)])
def test_coverage_of_the_spread(seeds, kept, at_least, at_most):
    """`kept`: the share of the variance between seeds that stays the same over epochs."""
    held = 0
    for trial in range(2000):
        rng = RNG([trial, seeds])
        curves = np.sqrt(kept) * rng.normal(size=(seeds, 1)) + np.sqrt(1 - kept) * rng.normal(size=(seeds, 8))
        low, high = stability.spread_interval(stability.spread(curves), seeds)
        held += low <= 1 <= high
    assert at_least <= held / 2000 <= at_most


@pytest.mark.parametrize("seeds", [2, 5])
def test_coverage_of_jitter(seeds):
    truth = stability.jitter(RNG(9).normal(0, 0.01, (100_000, 8))).mean()
    held = 0
    for trial in range(2000):
        low, high = stability.mean_interval(stability.jitter(RNG([trial, seeds]).normal(0, 0.01, (seeds, 8))))
        held += low <= truth <= high
    assert 0.93 <= held / 2000 <= 0.98


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_coverage_of_counts(rate):
    trials = RNG(4).poisson(rate, (2000, 5)).astype(float)
    held = [low <= rate <= high for low, high in map(stability.count_interval, trials)]
    assert np.mean(held) >= 0.94


def run(accuracy, loss=None):
    epochs = np.arange(1, len(accuracy) + 1)
    loss = 1 - np.asarray(accuracy) if loss is None else loss
    return {"curves": pd.DataFrame({"epoch": epochs, "val_acc": accuracy, "train_loss": loss})}


def rows(runs, one_set=True):
    return stability.rows(schemas.frame("curves", tables.curves(runs)), one_set)


def test_frame():
    curves = {s: approach() + RNG(s).normal(0, 0.02, 20) for s in (0, 3)}
    runs = {("b", 0): run(curves[0]), ("a", 0): run(curves[0][:2]), ("b", 3): run(curves[3])}
    frame = schemas.frame("stability", rows(runs))
    assert (
        frame.method.tolist() == ["b"] * 5 + ["a"] * 5 and frame.measure.tolist() == list(definitions.DEFINITIONS) * 2
    )
    own = frame.query("method == 'b'").set_index("measure")
    stacked = np.array(list(curves.values()))
    assert own.value["jitter"] == pytest.approx(stability.jitter(stacked).mean())
    assert own.value["spread"] == pytest.approx(stability.spread(stacked)) and own.runs.tolist() == [2] * 5
    assert frame.query("method == 'a'").value.isna().all() and (frame.query("method == 'a'").runs == 0).all()
    assert rows({}) == []


def test_the_spread_between_folds_is_not_told_as_one_of_training():
    curves = {("a", seed): run(approach() + RNG(seed).normal(0, 0.02, 20)) for seed in range(3)}
    one, folded = (schemas.frame("stability", rows(curves, one_set)).set_index("measure") for one_set in (True, False))
    assert one.value.notna().all() and one.reason.isna().all()
    assert np.isnan(folded.value["spread"]) and "different folds" in folded.reason["spread"]
    assert folded.drop("spread").value.equals(one.drop("spread").value)


def test_seeds_of_other_length_are_not_compared():
    found = rows({("a", 0): run(approach(12)), ("a", 1): run(approach(10)), ("a", 2): run(approach(12))})
    assert [row["runs"] for row in found] == [2] * 5


def test_definitions_can_be_printed_in_latex():
    known = set("−×—–±")
    for text in [definitions.INTERVALS, *(part for both in definitions.DEFINITIONS.values() for part in both)]:
        assert text.isascii() or {c for c in text if not c.isascii()} <= known
