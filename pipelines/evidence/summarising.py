"""Collect a profile's runs into the files that the report and DVC read.

Exactly the runs `methods x seeds` of the profile are read, by name. A run that is missing, failed or malformed is
an error unless the profile sets `allow_missing: true`; it is then a hole: its row in runs.csv says why, and the
method's numbers come from the seeds that remain.

Written to results/<profile>/:
    summary.json     {method: figures}, the DVC metric; null where a method has no run
    runs.csv        one row a run: settings, metrics, cost, environment
    curves.csv       method, seed, epoch, ...: every run's learning curve
    confusion.csv    method, true, predicted, count: test images, summed over seeds
    tuning.csv       method, lr, val_acc, val_loss, chosen, failure: every trial of the learning-rate grid
    comparisons.csv  each method against `full` and `transfer` on its backbone: paired differences of accuracy and AUC with
                     intervals, p, probability of improvement, equivalence within a margin, seeds needed; `reference`
                     names the other method, which for a network trained from scratch is the profile's first one
    mcnemar.csv      the same pairs seed by seed: images that only one of the two got right, McNemar's p
    scores.csv       one row a run: macro recall, precision, specificity, F1, ECE, ECE by chance, Brier, NLL
    class_scores.csv the same of each class: method, seed, class, images, predicted, recall, precision, specificity, f1
    reliability.csv  method, bin, low, high, confidence, accuracy, count: predictions pooled over seeds
    stability.csv    method, measure, value, lo, hi, seeds: of the training curves
    robustness.csv   method, kind, severity, accuracy, kept (of the clean accuracy), intervals: on corrupted test images,
                     of the seeds that `probe` names; without it no row
    ranks.csv        mean rank of each method's accuracy over seeds, Friedman's test, Nemenyi's critical difference; where
                     methods train on different shares of the labels, of those on the largest share
    labels.csv       where shares differ: a method's method (see `shares`), images and patients trained on, accuracy, AUC,
                     and the difference from the method's best method
"""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.summarise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile-file", default="params.yaml", help="composed parameters (default: %(default)s)")
    options = parser.parse_args(arguments)

    from pipelines.evidence.summary import summarise
    from pipelines.files.records import RecordError
    from pipelines.profile import ParamsError, load
    from pipelines.runs.reading import SummaryError

    try:
        summarise(load(options.profile_file))
    except (ParamsError, RecordError, SummaryError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
