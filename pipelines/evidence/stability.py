"""Stability of training curves: pure functions on arrays (S, E), a row a seed and a column an epoch, none missing.

a_st is the validation accuracy of seed s after epoch t = 1..E, l_st its training loss. Warm-up is the first 30 % of
the epochs, during which a one-cycle schedule raises the learning rate; methods with other schedules are given the same.
`definitions` says in words what each measure is, and how its interval comes about.

The intervals are over seeds, and come from stated distributions: percentile bootstraps over 2 to 5 seeds cover far
less than they promise (with two, a resampled standard deviation is zero half of the time).
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import chi2, t

from pipelines.evidence.definitions import FINAL, REACHED, SPIKE_RATIO, SPIKE_RISE, SPIKE_WINDOW
from pipelines.evidence.stats import LEVEL

NONE = (float("nan"),) * 2
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
SHORTEST = 3  # epochs of a curve that has any stability
ROUNDING = 1e-9  # values that differ by less are equal
FOLDED = "the runs validate on different folds, whose own spread it would be"


def warm_up(epochs: int) -> int:
    """Number of epochs that count as warm-up: 30 % of all, rounded up."""
    return -(-3 * epochs // 10)


def spread(accuracy: np.ndarray) -> float:
    """sqrt(mean_{t > W} var_s a_st), W = `warm_up`; NaN with one seed.

    The variance has the divisor S - 1, and variances are averaged, not standard deviations: those are too small by
    20 % with two seeds and by 6 % with five, so that methods with holes would look steadier.
    """
    late = accuracy[:, warm_up(accuracy.shape[1]) :]
    return float(np.sqrt(late.var(0, ddof=1).mean())) if len(late) > 1 and late.shape[1] else float("nan")


def jitter(accuracy: np.ndarray) -> np.ndarray:
    """sqrt(mean_t (a_s,t+1 - 2 a_st + a_s,t-1)^2 / 6), all three epochs after warm-up, as (S,).

    Second differences take a straight trend away; independent noise of variance v gives them variance (1 + 4 + 1) v.
    A smooth curve has little: its curvature / sqrt(6). NaN with fewer than three epochs after warm-up.
    """
    second = np.diff(accuracy[:, warm_up(accuracy.shape[1]) :], 2, axis=1)
    return np.sqrt((second**2).mean(1) / 6) if second.shape[1] else np.full(len(accuracy), np.nan)


def drawdown(accuracy: np.ndarray) -> np.ndarray:
    """max_t (max_{u <= t} a_su - a_st) over all epochs, warm-up too, as (S,)."""
    return (np.maximum.accumulate(accuracy, axis=1) - accuracy).max(1)


def epochs_to_final(accuracy: np.ndarray) -> np.ndarray:
    """min {t : a_st >= 0.95 f_s}, f_s = mean of the last `FINAL` epochs, as (S,)."""
    reached = accuracy >= REACHED * accuracy[:, -FINAL:].mean(1, keepdims=True)
    return reached.argmax(1) + 1.0


def loss_spikes(loss: np.ndarray) -> np.ndarray:
    """|{t > 1 : l_st > 1.5 m_st and l_st >= m_st + 0.05}|, m_st = median of l_s,t-5 .. l_s,t-1, as (S,).

    The rise in nats is asked for because a loss that has gone to 0.002 doubles without anything having happened. Losses
    are means over an epoch: a spike of a few steps is averaged away.
    """
    before = pd.DataFrame(loss.T).rolling(SPIKE_WINDOW, min_periods=1).median().shift().to_numpy().T
    return ((loss > SPIKE_RATIO * before) & (loss >= before + SPIKE_RISE)).sum(1)


def spread_interval(value: float, seeds: int) -> tuple[float, float]:
    """Interval of a standard deviation between seeds: value sqrt(d / chi2_d), d = seeds - 1.

    Exact for normal seeds whose distance is the same at all epochs. Where it changes, averaging over epochs adds
    degrees of freedom that a handful of seeds cannot estimate, and the interval covers more than it says.
    """
    if not value > ROUNDING or seeds < 2:  # also NaN; seeds that all agree do not say how far apart others would be
        return NONE
    low, high = value * np.sqrt((seeds - 1) / chi2.ppf(TAILS[::-1], seeds - 1))
    return float(low), float(high)


def mean_interval(values: np.ndarray, lowest=0.0, highest=np.inf) -> tuple[float, float]:
    """Student's t interval of the mean of (S,) values, cut to [lowest, highest]; NaN with one value or all equal."""
    if len(values) < 2 or np.ptp(values) < ROUNDING:
        return NONE
    found = t.interval(LEVEL, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
    low, high = np.clip(found, lowest, highest)
    return float(low), float(high)


def count_interval(counts: np.ndarray) -> tuple[float, float]:
    """Exact interval of the mean of (S,) Poisson counts (Garwood 1936): no spike in five runs still allows 0.74 a run.

    Too narrow where some seeds spike much more often than others, which counts this small cannot show.
    """
    if not len(counts):
        return NONE
    total = counts.sum()
    low = chi2.ppf(TAILS[0], 2 * total) / 2 if total else 0.0
    return float(low / len(counts)), float(chi2.ppf(TAILS[1], 2 * total + 2) / 2 / len(counts))


def measures(accuracy: np.ndarray, loss: np.ndarray) -> dict[str, tuple[float, float, float, int]]:
    """(value, low, high, seeds) of each of the definitions: the mean over the seeds whose curves are whole; NaN where
    curves are of fewer than `SHORTEST` epochs.

    Args:
        accuracy, loss: validation accuracy and training loss (S, E); NaN where an epoch is missing.
    """
    accuracy, loss = (own[~np.isnan(own).any(1) & (own.shape[1] >= SHORTEST)] for own in (accuracy, loss))
    between = spread(accuracy)
    found = {"spread": (between, *spread_interval(between, len(accuracy)), 0 if np.isnan(between) else len(accuracy))}
    by_seed = {
        "jitter": (jitter(accuracy), mean_interval),
        "drawdown": (drawdown(accuracy), mean_interval),
        "epochs_to_final": (epochs_to_final(accuracy), partial(mean_interval, lowest=1, highest=accuracy.shape[1])),
        "loss_spikes": (loss_spikes(loss), count_interval),
    }
    for name, (values, interval) in by_seed.items():
        values = values[~np.isnan(values)]
        found[name] = (float(values.mean()) if len(values) else float("nan"), *interval(values), len(values))
    return found


def rows(curves: pd.DataFrame, one_set: bool) -> list[dict]:
    """Rows of stability.csv, a method and measure each.

    Args:
        curves: rows of curves.csv.
        one_set: whether all runs validate on the same images. Where they do not, the spread between runs is that of the
            validation sets as much as of training, and is not told.
    """
    found = []
    for method, own in curves.groupby("method", sort=False):
        both = (own.pivot(index="seed", columns="epoch", values=name).to_numpy() for name in ("val_acc", "train_loss"))
        for name, (value, lo, hi, count) in measures(*both).items():
            row = {"method": method, "measure": name, "runs": count}
            if name == "spread" and not one_set:
                found.append({**row, "runs": 0, "reason": FOLDED})
            else:
                found.append(row | {"value": value, "lo": lo, "hi": hi})
    return found
