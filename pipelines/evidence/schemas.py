"""The results files of a profile: the columns of every CSV, by one list for who writes and who reads.

`TABLES[name]` describes results/<profile>/<name>.csv. A column is a word or a number; a number that cannot be said, and
a word that does not apply, is an empty field. `frame` makes what is written, `read` reads it back and names what is
wrong.

Beside them lie
    summary.json     {method: figures}: `pipelines.evidence.summary.SUMMARY` and seeds (runs); null where it has no run
    chosen.json      what claims.yaml declares, as this profile has it: `pipelines.evidence.declared.Chosen`
    metrics.json     at most 16 of these numbers, the only metric of DVC
    hard_scans.npz, explain.npz    pixels and Grad-CAM maps, see `pipelines.evidence.explaining`
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipelines.files.errors import UserError

LARGEST = 2**28  # bytes of a file


@dataclass(frozen=True)
class Table:
    """A results file: what a row is, the meaning of its columns, which of them are words, and who writes it."""

    row: str
    columns: dict[str, str]
    words: set[str]
    command: str


def _table(row: str, *columns: str, command: str = "python -m pipelines.summarise") -> Table:
    """Columns of one meaning as "name, name: meaning": "*name" is a word, "name±" a number with its 95 % interval."""
    meanings, words = {}, set()
    for column in columns:
        marks, meaning = column.split(": ", 1)
        for mark in marks.split(", "):
            name = mark.strip("*±")
            meanings |= dict.fromkeys([name, f"{name}_lo", f"{name}_hi"] if mark.endswith("±") else [name], meaning)
            if mark.startswith("*"):
                words.add(name)
    return Table(row, meanings, words, command)


_COST = "python -m pipelines.cost"
_METHOD, _CLASS = "*method: of the profile", "*class: its name"
_SEED = "seed: of the run; with k folds it is fold seed mod k of repeat seed div k"
_LIMITS = "lo, hi: limits of the 95 % interval"
_RUNS = "runs: how many runs it is the mean of"
_IMAGES, _PATIENTS = "images: different test images", "patients: whose they are; empty where patients are not known"
_DATA = "*data: test for the profile's own test images, else the name of external data"
_SHARE = "share: of the training patients"
_SCAN = (
    "image: its number in the prepared data; data/<profile>/files.csv names its file", "*label: its class",
    "*predicted: the class that most runs name", "probability: that the runs give it, on average",
    "share_wrong: of the runs", "runs: that tested the image",
)  # fmt: skip
_STEP = (
    "*role: method of the profile, or what stands beside one", "*backbone: of it", "image_size: pixels a side",
    "batch_size: images", "trainable: trained parameters", "step_ms±: training step",
    "step_ratio±: step, of full fine-tuning's on the same network", "peak_mib: most memory of a step",
    "peak_ratio: of full fine-tuning's", "images_per_s: of steps",
    "epoch_s: of the profile's training images, computed",
)  # fmt: skip

TABLES: dict[str, Table] = {
    "runs": _table(
        "a run of the profile, holes too",
        _METHOD, _SEED,
        "*status: complete, missing, failed or malformed", "*family: of the method", "*backbone: of the network",
        "*weights: name of the file that it starts from, or imagenet or random", "*weights_sha256: of that file",
        "lr: learning rate", "epochs: of the recipe", "best_epoch: of highest validation score, the one that is tested",
        "train_acc, val_acc: accuracy in the best epoch", "val_auc: macro AUC", "val_loss: mean loss",
        "test_acc: accuracy on the run's test images", "test_auc: macro AUC", "test_loss: mean loss",
        "trainable, total: trained parameters, all parameters", "flops: of a forward pass of one image",
        "epoch_s: median seconds of an epoch", "total_s: seconds of the run", "n_train, n_val, n_test: images",
        "n_test_patients: whose the test images are, where patients are known",
        "*fingerprint: of all that the run's numbers depend on", "*python, *torch, *torchvision: version",
        "*platform, *cpu: the machine, its processor", "threads: of the run",
        "*gpu, *driver, *cuda: the accelerator, versions of its software", "*commit: of the code",
        "*dirty: whether the code had changes that were not committed", "*date: when the run ended",
        "*failure: of a hole, why it is one",
    ),
    "curves": _table(
        "an epoch of a run",
        _METHOD, _SEED, "epoch: from 1", "lr: at its start", "train_loss, train_acc: mean over the epoch",
        "val_loss, val_acc, val_balanced_acc, val_auc: after it", "epoch_s: seconds",
    ),
    "confusion": _table(
        "a method, a true and a predicted class",
        _METHOD, "*true, *predicted: class", "count: test images, summed over runs",
    ),
    "tuning": _table(
        "a learning rate that was tried",
        _METHOD, "lr: tried", "seeds: how many it was tried on; the scores are means over them, empty where one failed",
        "val_acc, val_balanced_acc, val_auc, val_loss: reached", "*chosen: whether it became the method's rate",
        "*failure: of the first trial that could not be trained, why; or empty",
    ),
    "contrasts": _table(
        "a declared contrast (claims.yaml) on one data set at one share of the labels: method against comparator; the "
        "rows of one data set, share and metric are one Holm family",
        _DATA, _SHARE, "*metric: accuracy, balanced_accuracy or auc (macro, one class against the rest)",
        "*method, *against: declared method and comparator, as they are called at this share",
        "*comparator: as claims.yaml names it", "difference: mean over runs of method minus comparator, paired by seed",
        "lo, hi: limits of the Holm-adjusted interval, on which all verdicts of the row rest",
        "level: confidence level of that interval, from Holm's steps; 0.95 where the family has one member",
        "p, p_holm: two-sided, and adjusted in the family", "p_swap, p_swap_holm: of the patient swap test",
        "se: standard error of the difference",
        "corrected_lo, corrected_hi: Nadeau and Bengio's corrected interval at the same level, a sensitivity analysis; "
        "empty where the test images are no folds",
        "trained_lo, trained_hi: at the same level for these trained networks only: patients drawn anew, all images "
        "pooled", "runs: pairs of runs", "folds: of the design, 1 where all runs share one test set",
        "repeats: of the folds", _IMAGES, _PATIENTS,
        "margin: of non-inferiority; empty for AUC", "size: gain that is claimed, or empty",
        "*higher: verdict on 'the method is better': supported, contradicted, inconclusive or not tested",
        "*reaches: verdict on 'by the claimed size'; empty where none is claimed",
        "*noninferior: verdict on 'at most the margin worse'; empty for AUC",
        "*reason: of 'not tested', why; of 'inconclusive', what would decide it on these images",
        "repeats_needed: of all folds, to show a true difference of the claimed size (else the margin) with 80 % "
        "power; inf where these images never do, empty where only further repeats would tell",
    ),
    "pairs": _table(
        "a method against a reference, exploratory: no verdicts, intervals unadjusted",
        _DATA, _METHOD,
        "*reference: the declared method, full or head_only, or its second run on the method's own machine; or the "
        "same method at another rate or on another machine",
        "*role: declared, full, head_only or again: what the reference is",
        "*metric: accuracy (balanced_accuracy on external data) or auc",
        "difference: mean over runs, paired by seed", _LIMITS, "runs: pairs of runs", _IMAGES,
    ),
    "external": _table(
        "a method on one external data set, patients as units",
        _DATA, _METHOD, _RUNS, _IMAGES, _PATIENTS, "accuracy±: mean over runs",
        "balanced_accuracy±: mean recall of the classes", "auc±: macro",
        "own_balanced_accuracy: of the same runs on their own test images",
        "change±: balanced accuracy here minus there, paired by run",
    ),
    "scores": _table(
        "a run", _METHOD, _SEED, "recall, precision, specificity, f1: macro; recall is balanced accuracy",
        "ece: expected calibration error", "ece_chance: of a calibrated network", "brier: score, 0 to 2",
        "nll: negative log likelihood in nats",
    ),
    "class_scores": _table(
        "a run and class", _METHOD, _SEED, _CLASS, "images: of the class", "predicted: images so called",
        "recall, precision, specificity, f1: of the class against the rest",
    ),
    "clinical": _table(
        "a measure of a method, for images or patients",
        _METHOD, "*level: image, or patient: probabilities averaged over a patient's images of one class",
        "*class: that it is about, empty for all", "*measure: accuracy, balanced_accuracy, kappa (Cohen's), auc, "
        "average_precision, or sensitivity (at 95 % specificity); the last three of a class against the rest",
        "value: mean over runs", _LIMITS, _RUNS,
    ),
    "roc": _table(
        "a point of a method's curve of one class against the rest, mean over runs; declared methods only",
        _METHOD, _CLASS, "*curve: roc or precision_recall", "x, y: false and true positive rate; recall and precision",
    ),
    "reliability": _table(
        "a bin of confidence of a method, runs pooled",
        _METHOD, "bin: from 1", "low, high: its edges", "confidence: mean", "accuracy: share right", "count: images",
    ),
    "stability": _table(
        "a measure of a method's training curves",
        _METHOD, "*measure: spread, jitter, drawdown, epochs_to_final, loss_spikes",
        "value: mean over runs", _LIMITS, _RUNS, "*reason: why there is no value, or empty",
    ),
    "robustness": _table(
        "a method on corrupted test images",
        _METHOD, "*kind: of corruption; mean for all of them", "severity: 1 to 5, empty for their mean",
        "accuracy: mean over runs", _LIMITS, "clean: accuracy on the same images uncorrupted",
        "drop±: clean minus accuracy, paired by image", _RUNS, _IMAGES,
    ),
    "robustness_pairs": _table(
        "the declared method against a comparator on one kind of corruption, exploratory",
        _METHOD, "*against: comparator", "*kind: of corruption; clean for none, mean for all kinds",
        "difference: of accuracy, method minus comparator, mean over severities, paired by run and image",
        "lo, hi: limits of the 95 % interval; of kind mean, kinds as well as patients and runs are drawn anew",
        "*order: reversed where the interval lies on the other side of zero than the mean's difference, same where on "
        "its side, else open", _RUNS, _IMAGES,
    ),
    "labels": _table(
        "a method of a series (same settings but for the share of the labels), where shares differ",
        "*series: named by its method of the largest share", _METHOD, _SHARE, _RUNS,
        "images, patients: trained on", "acc_mean, acc_lo, acc_hi: accuracy", "auc_mean, auc_lo, auc_hi: macro AUC",
        "difference: accuracy minus that at the largest share, paired by seed", _LIMITS,
    ),
    "hard_scans": _table(
        "a test image that most runs of the declared methods get wrong with confidence, the surest errors first", *_SCAN
    ),
    "misclassified": _table("a test image that more than half of the runs that tested it get wrong", *_SCAN),
    "cost": _table(
        "a method or reference implementation in one setting, whose contenders take turns",
        "*method: or reference implementation", *_STEP, "flops: of a forward pass of one image",
        "ceiling_share: operations a second, of the largest product's",
        "inference_ms, inference_merged_ms: one image, before and after the merge", "inference_ratio±: of full's",
        "rounds, processes: of a process, and how many",
        "*setting: label of what is measured together", "*family: of the method",
        "*of: the CoLoRA method that a reference implementation stands beside", "*precision: float32 or bfloat16",
        "step_flops: of a step", "inference_batch: images of a batch",
        "inference_batch_ms, inference_batch_merged_ms: of one, before and after the merge",
        "inference_batch_ratio±: of full's", "input_ratio±: a step fed as in training, of one whose batch lies ready",
        "*compile: whether the network was compiled", "inference_flops: of a deployed network, one image",
        "*inference_operators: digest of those that it runs on one image, in order and with shapes", command=_COST,
    ),
    "cost_growth": _table(
        "a method at one point of a sweep",
        "*sweep: batch, image or rank", "rank: of the adaptation, or empty", _METHOD, *_STEP,
        "rounds, processes: of a process, and how many", "*family: of the method", "*precision: float32 or bfloat16",
        "*compile: whether the network was compiled", command=_COST,
    ),
    "cost_layers": _table(
        "a layer of a network, forward and backward",
        "*layer: its name", "*method: the network that has it", "*shape: of the case", "elements: of the input",
        "ms±: time", "reference_ms±: of the reference", "floor_ms±: of what must be done at least",
        "*bound: what that is: copy, arithmetic or products", "reference_ratio±, floor_ratio±: time, of theirs",
        "peak_mib, reference_peak_mib: most memory beyond inputs and parameters", "peak_ratio: of the reference's",
        "kept_mib, reference_kept_mib: from forward to backward",
        "kept_per_element, reference_kept_per_element: bytes", "error: largest difference, of the largest value",
        "tolerance: allowed of it", "rounds: measured",
        command=_COST,
    ),
}  # fmt: skip


def frame(name: str, rows: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """Rows as the table `name`: its columns in their order; a column that a row lacks is empty.

    Raises:
        UserError: a row has a column that the table does not.
    """
    columns = TABLES[name].columns
    found = pd.DataFrame(rows)
    if strangers := [column for column in found if column not in columns]:
        raise UserError(f"{name}.csv: no column {', '.join(map(str, strangers))} in its table in schemas.py")
    return found.reindex(columns=list(columns))


def read(directory: str | Path, name: str) -> pd.DataFrame:
    """Read results/<profile>/<name>.csv: words as they stand (empty ones missing), numbers as floats or whole numbers.

    Raises:
        UserError: the file is missing, is no CSV, lacks a column, or has words where numbers belong.
    """
    path, table = Path(directory) / f"{name}.csv", TABLES[name]
    again = f"run `{table.command}`"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        # "None" or "nan" may be a class's name; only an empty field is a missing value.
        found = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(table.words, str))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {again} first") from None
    except Exception as error:  # pandas raises many types for text that is no table
        raise UserError(f"{path}: not readable as CSV ({error}); {again} again") from None
    if missing := [column for column in table.columns if column not in found]:
        raise UserError(f"{path}: no column {', '.join(missing)}; {again} again")
    for column in (name for name in table.columns if name not in table.words):
        if found[column].isna().all():  # a column without a value has no type
            found[column] = found[column].astype(float)
        elif not pd.api.types.is_any_real_numeric_dtype(found[column]):
            values = found[column].dropna()
            word = next(iter(values[pd.to_numeric(values, errors="coerce").isna()]), values.iloc[0])
            raise UserError(f"{path}: column {column} should hold numbers, found {word!r}; {again} again")
    for column in (name for name in ("method", "seed", "series") if name in table.columns):
        if (empty := found[column].isna()).any():
            raise UserError(f"{path}: column {column} is empty in row {1 + int(empty.argmax())}; {again} again")
    return found[list(table.columns)]
