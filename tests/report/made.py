"""Result files of a profile as `pipelines.summarise` and `pipelines.cost` leave them, made up."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.evidence import schemas

METHOD = "colora-blocks2-5"
CLASSES = ["cnv", "dme", "drusen", "normal"]
# name: (family, backbone, weights, accuracy, trained parameters)
METHODS = {
    "full": ("full", "vgg16", "imagenet", 0.93, 15_583_812),
    "head-only": ("head_only", "vgg16", "imagenet", 0.88, 869_124),
    "bitfit": ("bitfit", "vgg16", "imagenet", 0.89, 873_220),
    "adapters": ("adapters", "vgg16", "imagenet", 0.925, 1_477_444),
    "conv-lora-r8": ("conv_lora", "vgg16", "imagenet", 0.918, 931_076),
    METHOD: ("colora", "vgg16", "imagenet", 0.92, 2_540_292),
    "colora-block5": ("colora", "vgg16", "imagenet", 0.9, 1_670_916),
    "vit-full": ("full", "deit_tiny_patch16_224", "imagenet", 0.945, 5_525_000),
    "medmamba": ("medmamba", "medmamba", "random", 0.7, 14_450_000),
    "kan-head-full": ("kan_head", "vgg16", "imagenet", 0.915, 15_814_000),
}
COMPARATORS = ["full", "head-only", "conv-lora-r8", "adapters", "bitfit", "vit-full", "medmamba", "kan-head-full"]
GPU, DAY = "Some GPU", "2026-01-02"


def verdict(shown: bool, excluded: bool) -> str:
    return "supported" if shown else "contradicted" if excluded else "inconclusive"


def contrast(against: str, difference: float, half: float = 0.015, metric: str = "accuracy", **changes) -> dict:
    """A row of contrasts.csv whose verdicts follow from its interval, unless they are given."""
    low, high, size, margin = difference - half, difference + half, 0.041, 0.02
    row = {
        "data": "test", "share": 1.0, "metric": metric, "method": METHOD, "against": against, "comparator": against,
        "difference": difference, "lo": low, "hi": high, "level": 0.99, "p": 0.01, "p_holm": 0.02, "p_swap": 0.01,
        "p_swap_holm": 0.02, "se": half / 2.5, "runs": 10, "folds": 5, "repeats": 2, "images": 1000, "patients": 633,
        "margin": margin, "size": size, "higher": verdict(low > 0, high < 0),
        "reaches": verdict(low > 0 and high >= size, high < size),
        "noninferior": verdict(low > -margin, high < -margin),
        "reason": "4 repeats of all folds would decide it", "repeats_needed": 4,
    }  # fmt: skip
    return {**row, **changes}


def contrasts(methods=METHODS) -> list[dict]:
    own = METHODS[METHOD][3]
    there = [name for name in COMPARATORS if name in methods]
    return [
        contrast(name, round(own - METHODS[name][3], 6), metric=metric)
        for metric in ("accuracy", "auc")
        for name in there
    ]


def costs(step: tuple = (0.8, 0.79, 0.81), peak: float = 0.9, operators: str = "same", **changes) -> list[dict]:
    """Rows of cost.csv: full fine-tuning and the method at one setting."""
    shared = {
        "role": "method", "backbone": "vgg16", "image_size": 64, "batch_size": 16, "precision": "float32",
        "compile": False, "rounds": 9, "setting": "64px-b16", "inference_flops": 1000, **changes,
    }  # fmt: skip
    ratios = dict(zip(("step_ratio", "step_ratio_lo", "step_ratio_hi"), step, strict=True))
    return [
        {**shared, "method": "full", "family": "full", "step_ratio": 1, "step_ratio_lo": 1, "step_ratio_hi": 1,
         "peak_ratio": 1, "inference_operators": "same"},
        {**shared, "method": METHOD, "family": "colora", **ratios, "peak_ratio": peak,
         "inference_operators": operators},
    ]  # fmt: skip


def write(
    folder: Path, methods=tuple(METHODS), seeds=(0, 1, 2), skip=(), source="folder", gpu=GPU, card=None, **tables
) -> Path:
    """results/<profile>/ in `folder`; skip: pairs (method, seed) without run. tables: rows instead of made-up ones."""
    rng = np.random.default_rng(0)
    runs, curves, summary = [], [], {}
    for method in methods:
        family, backbone, weights, accuracy, trained = METHODS[method]
        own = [seed for seed in seeds if (method, seed) not in skip]
        found = [accuracy + 0.002 * seed for seed in own]
        for seed in seeds:
            about = {"method": method, "seed": seed, "family": family, "backbone": backbone}
            if seed not in own:
                runs.append({**about, "status": "missing", "failure": "no record"})
                continue
            runs.append({
                **about, "status": "complete", "weights": weights, "weights_sha256": "ab" * 32, "lr": 0.001,
                "epochs": 3, "best_epoch": 3, "train_acc": accuracy, "val_acc": accuracy, "val_auc": accuracy,
                "val_loss": 0.3,
                "test_acc": accuracy + 0.002 * seed, "test_auc": accuracy, "test_loss": 0.3, "trainable": trained,
                "total": 15_583_812, "flops": 30_936_000_000, "epoch_s": 10.0, "total_s": 40.0, "n_train": 640,
                "n_val": 160, "n_test": 200, "n_test_patients": 120, "python": "3.12.3", "torch": "2.13.0",
                "cpu": "Some CPU", "threads": 1, "gpu": gpu, "commit": "0123456789abcdef" * 2, "dirty": False,
                "date": f"{DAY}T03:04:05+00:00",
            })  # fmt: skip
            curves += [
                {"method": method, "seed": seed, "epoch": epoch, "lr": 0.001, "train_loss": 1 / epoch, "train_acc": 0.9,
                 "val_loss": 1 / epoch, "val_acc": round(accuracy - 0.1 / epoch + 0.01 * rng.random(), 5),
                 "val_auc": accuracy, "epoch_s": 10.0}
                for epoch in (1, 2, 3)
            ]  # fmt: skip
        mean = float(np.mean(found)) if found else None
        around = [None, None] if mean is None else [mean - 0.02, mean + 0.02]
        summary[method] = {
            "acc_mean": mean, "acc_sd": mean and 0.002, "acc_lo": around[0], "acc_hi": around[1], "acc_se_images": 0.01,
            "acc_max": mean, "auc_mean": mean, "auc_sd": mean and 0.002, "auc_lo": around[0], "auc_hi": around[1],
            "trainable": trained if own else None, "total": 15_583_812 if own else None, "flops": 30_936_000_000,
            "epoch_s": 10.0, "best_epoch_mean": 3.0, "lr": 0.001, "seeds": len(own),
        }  # fmt: skip
    confusion = [
        {"method": method, "true": true, "predicted": predicted, "count": 40 if true == predicted else 4}
        for method in methods for true in CLASSES for predicted in CLASSES
    ]  # fmt: skip
    class_scores = [
        {"method": method, "seed": seed, "class": name, "images": 50, "predicted": 50, "recall": 0.9, "precision": 0.8,
         "specificity": 0.95, "f1": 0.85}
        for method in methods for seed in seeds for name in CLASSES
    ]  # fmt: skip
    tuning = [
        {"method": method, "lr": lr, "seeds": 1, "val_acc": 0.8, "val_loss": 0.4, "chosen": lr == 0.001}
        for method in methods for lr in (0.001, 0.003)
    ]  # fmt: skip
    made = {
        "runs": runs, "curves": curves, "confusion": confusion, "class_scores": class_scores, "tuning": tuning,
        "contrasts": contrasts(methods), "cost": costs(),
    }  # fmt: skip
    (folder / "data").mkdir(parents=True)
    for name, rows in {**made, **tables}.items():
        schemas.frame(name, rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "summary.json").write_text(json.dumps(summary))
    settings = {"source": source, "image_size": 224, "medmnist": {"dataset": "octmnist"}}
    content = {"settings": settings, "count": 1000, "patients": 633, "image_size": 224, **(card or {})}
    (folder / "data" / "card.json").write_text(json.dumps(content))
    (folder / "cost.json").write_text(json.dumps({"environment": {"gpu": None, "cpu": "Some CPU", "threads": 2}}))
    return folder


def rename(folder: Path, names: dict[str, str], failure: str) -> None:
    """Replace whole values in all result files, and give every hole a failure."""
    for path in folder.glob("*.csv"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).map(lambda value: names.get(value, value))
        if path.name == "runs.csv":
            frame.loc[frame.status != "complete", "failure"] = failure
        frame.to_csv(path, index=False)
    summary = json.loads((folder / "summary.json").read_text())
    renamed = {names.get(method, method): row for method, row in summary.items()}
    (folder / "summary.json").write_text(json.dumps(renamed))
