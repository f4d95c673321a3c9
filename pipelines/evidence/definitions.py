"""The measures of stability in words and the constants in them, for what computes them and for the report."""

FINAL = 3  # epochs that the final value is a mean of
REACHED = 0.95
SPIKE_RATIO = 1.5
SPIKE_RISE = 0.05
SPIKE_WINDOW = 5

# Plain characters only: the LaTeX tables print these too.
DEFINITIONS = {
    "spread": (
        "Spread between seeds",
        "root of the mean, over the epochs t after warm-up, of the variance of a(t) between seeds",
    ),
    "jitter": (
        "Epoch-to-epoch jitter",
        "root of the mean, over the epochs t after warm-up, of (a(t+1) − 2 a(t) + a(t−1)) squared / 6: zero for a "
        "straight line, the standard deviation of noise that is independent from epoch to epoch",
    ),
    "drawdown": ("Largest drawdown", "maximum over t of max(a(1), ..., a(t)) − a(t)"),
    "epochs_to_final": (
        f"Epochs to {100 * REACHED:.0f} %",
        f"first t with a(t) at least {REACHED} × the final value, the mean of the last {FINAL} epochs",
    ),
    "loss_spikes": (
        "Loss spikes",
        f"number of epochs whose mean training loss is above {SPIKE_RATIO} × the median of the {SPIKE_WINDOW} epochs "
        f"before (fewer at the start), and above that median by {SPIKE_RISE} or more",
    ),
}
INTERVALS = (
    "The intervals are 95 % intervals over seeds, wide because seeds are few. Spread: chi-squared with seeds − 1 "
    "degrees of freedom, exact if a seed keeps its distance from the others at all epochs and too wide otherwise. Loss "
    "spikes: exact for Poisson counts. The others: Student's t of the seeds' values, cut at values that cannot be; "
    "none where all seeds give the same value, which says nothing about how they vary."
)
