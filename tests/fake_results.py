"""Run records as `pipelines.train` leaves them, made up: for tests of what reads them."""

import json
import re

import numpy as np

CLASSES = ["cnv", "dme", "drusen", "normal"]

# name: (family, accuracy aimed at, trained parameters, seconds an epoch)
METHODS = {
    "full": ("full", 0.93, 15_583_812, 196.0),
    "head-only": ("head_only", 0.88, 869_124, 79.0),
    "bitfit": ("bitfit", 0.89, 873_220, 110.0),
    "adapters": ("adapters", 0.945, 1_502_000, 150.0),
    "conv-lora-r4": ("conv_lora", 0.94, 900_100, 140.0),
    "conv-lora-r8": ("conv_lora", 0.943, 931_076, 141.0),
    "conv-lora-r16": ("conv_lora", 0.949, 993_028, 143.0),
    "conv-lora-kxk-r8": ("conv_lora", 0.947, 1_110_000, 155.0),
    "colora-blocks1-5": ("colora", 0.955, 2_545_860, 230.0),
    "colora-blocks2-5": ("colora", 0.957, 2_540_292, 180.0),
    "colora-blocks3-5": ("colora", 0.952, 2_513_156, 167.0),
    "colora-blocks4-5": ("colora", 0.94, 2_341_636, 129.0),
    "colora-block5": ("colora", 0.935, 1_670_916, 98.0),
    "colora-blocks2-5-merge-reset": ("colora", 0.95, 2_540_292, 181.0),
    "colora-blocks2-5-pointwise-only": ("colora", 0.948, 2_499_332, 150.0),
    "colora-blocks2-5-depthwise-only": ("colora", 0.92, 910_084, 117.0),
}

# Methods on networks other than a pretrained VGG16, as in METHODS.
MORE = {
    "vit-full": ("full", 0.93, 5_525_000, 90.0),
    "vit-head": ("head_only", 0.86, 772, 30.0),
    "vit-bitfit": ("bitfit", 0.9, 40_000, 60.0),
    "vit-lora": ("lora", 0.925, 150_000, 75.0),
    "vit-lora-mlp": ("lora", 0.93, 370_000, 85.0),
    "medmamba": ("medmamba", 0.9, 14_450_000, 400.0),
    "vim": ("vim", 0.88, 6_900_000, 350.0),
    "kan-head": ("kan_head", 0.89, 1_100_000, 80.0),
    "kan-head-finetuned": ("kan_head", 0.94, 15_814_000, 200.0),
    "medkan": ("medkan", 0.91, 11_500_000, 500.0),
    "medmnist-resnet18": ("medmnist", 0.87, 11_170_000, 60.0),
    "medmnist-resnet18-28": ("medmnist", 0.85, 11_170_000, 12.0),
    "resnet50-full": ("full", 0.94, 24_600_000, 210.0),
    "resnet50-head-only": ("head_only", 0.88, 1_100_000, 90.0),
    "resnet50-colora-blocks2-5": ("colora", 0.95, 9_200_000, 220.0),
    "convnext-colora-blocks2-5": ("colora", 0.955, 8_900_000, 260.0),
    "efficientnet-colora-blocks2-5": ("colora", 0.945, 2_100_000, 140.0),
}
SCRATCH = ("medmamba", "vim", "medkan", "medmnist")  # families that bring a network of their own
BACKBONES = {
    "vit": "deit_tiny_patch16_224",
    "resnet50": "resnet50",
    "convnext": "convnext_tiny",
    "efficientnet": "efficientnet_b0",
}
CORRUPTIONS = ("speckle", "blur", "contrast", "gamma", "downsampling", "motion")  # as in pipelines.corruptions
# backbone: (all parameters, forward FLOPs of one image)
NETWORKS = {
    "vgg16": (15_583_812, 30_936_000_000),
    "deit_tiny_patch16_224": (5_525_000, 2_520_000_000),
    "resnet50": (24_600_000, 8_180_000_000),
    "convnext_tiny": (28_600_000, 8_900_000_000),
    "efficientnet_b0": (4_900_000, 780_000_000),
    "medmamba": (14_450_000, 4_000_000_000),
    "vim": (6_900_000, 3_000_000_000),
    "medkan": (11_500_000, 9_500_000_000),
    "medmnist": (11_170_000, 3_640_000_000),
}


def section(method):
    """The method's section: networks of a family's own as the pipeline records them."""
    family = {**METHODS, **MORE}[method][0]
    if family in SCRATCH:
        return {"family": family, "backbone": family, "weights": "random"}
    named = [backbone for start, backbone in BACKBONES.items() if method.startswith(f"{start}-")]
    found = {"family": family, **({"backbone": named[0]} if named else {})}
    if blocks := re.search(r"colora-blocks?(\d)(?:-(\d))?", method):  # else two placements were one method
        found["blocks"] = [int(blocks[1]), int(blocks[2] or blocks[1])]
    return found


def params(methods=None, seeds=(0, 1), profile="fake", **more):
    """A checked parameter file over some of `METHODS` and `MORE`, by default the former."""
    from pipelines.profile import Params

    phantom = {"train": 600, "val": 200, "test": 400}
    methods = list(METHODS) if methods is None else methods
    return Params(
        profile=profile,
        seeds=list(seeds),
        model={"backbone": "vgg16", "weights": "imagenet"},
        data={"source": "phantom", "image_size": 32, "phantom": phantom},
        train={"epochs": 12, "batch_size": 8, "lr": 1e-3},
        method={method: section(method) for method in methods},
        **more,
    )


SHARES = {0.05: "-05", 0.1: "-10", 0.25: "-25", 0.5: "-50", 1: ""}


def label_params(methods=("full", "head-only", "colora-blocks2-5", "vit-lora"), seeds=range(5), shares=SHARES, **more):
    """A profile of methods on several shares of the labels, and the methods that `write_run` is to imitate."""
    content = params(methods, seeds, **more).model_dump()
    content["method"] = {
        method + SHARES[share]: {**section(method), **({"train": {"share": share}} if share < 1 else {})}
        for method in methods
        for share in shares
    }
    return type(params(methods))(**content), {method + SHARES[share]: method for method in methods for share in shares}


def write_label_card(params, patients=446):
    """A data card with the numbers of patients that `pipelines.datacard` would count, near enough."""
    parts = {f"train@{share:g}": round(patients * share) for share in SHARES if share < 1}
    own = {"train": patients, **parts, "val": 60, "test": 126}
    card = {
        "settings": {"source": "folder", "shares": [share for share in SHARES if share < 1]}, "count": 1000,
        "patients": 633, "seeds": {str(seed): {"patients": own} for seed in params.seeds},
    }  # fmt: skip
    path = params.results_dir / "data" / "card.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(card))


def tested_images(params, seed, n_test, folds):
    """indices, labels, hardness (n_test, C) of a seed's test images: fold seed mod k of repeat seed div k, of k folds.

    folds: their number; True for as many as seeds; False for one test set that all seeds share.
    """
    k = len(params.seeds) if folds is True else folds or 1
    images = np.random.default_rng(0)
    labels = images.permutation(np.arange(k * n_test) % len(CLASSES))
    hardness = images.normal(size=(k * n_test, len(CLASSES)))
    repeat, fold = divmod(seed, k) if folds else (0, 0)
    order = np.random.default_rng([repeat, 5]).permutation(k * n_test)
    indices = np.sort(order[fold * n_test : (fold + 1) * n_test])
    return indices, labels[indices], hardness[indices]


def answers(rng, labels, hardness, aim):
    """Probabilities (N, C) float32 of a network of about this accuracy."""
    noise = 1.2 * hardness + 0.8 * rng.normal(size=hardness.shape)
    logits = noise + np.eye(len(CLASSES))[labels] * 3.4 * (aim / 0.9) ** 6
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32)


EXTERNAL_IMAGES = 60


def write_external(params, folder, rng, aim):
    """external-<name>.npz of a run, for each set that the profile names: other images, harder ones."""
    for name in params.data.external_names:
        images = np.random.default_rng(99)
        labels = np.sort(images.integers(0, len(CLASSES), EXTERNAL_IMAGES))
        hardness = images.normal(size=(EXTERNAL_IMAGES, len(CLASSES)))
        content = {"labels": labels, "probabilities": answers(rng, labels, hardness, 0.9 * aim)}
        np.savez(folder / f"external-{name}.npz", indices=np.arange(EXTERNAL_IMAGES), **content)
        rows = [f"{image},{label},{image // 2}" for image, label in enumerate(labels)]
        table = params.results_dir / "data" / f"external-{name}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(["image,label,patient", *rows]) + "\n")


def write_patients(params, images, each=2):
    """patients.csv: so many images a patient."""
    path = params.results_dir / "data" / "patients.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{image},{image // each}" for image in range(images)]
    path.write_text("\n".join(["image,patient", *rows]) + "\n")


def write_run(params, method, seed, n_test=200, folds=False, epochs=12, environment=None, like=None):
    """One complete run; the same seed has the same test images in every method. `like`: which method to imitate."""
    methods = {**METHODS, **MORE}
    family, aim, trainable, epoch_s = methods[(like or {}).get(method, method)]
    # Not from `params.settings`, which knows no family but those of this checkout.
    train = {**params.train.model_dump(), "epochs": epochs, **params.method[method].get("train", {})}
    settings = {**params.model, **params.method[method], "train": train}
    aim *= 1 - 0.15 * (1 - train["share"]) ** 4  # fewer labels, lower accuracy
    total, flops = NETWORKS[settings["backbone"]]
    place = list(methods).index(method) if method in methods else 100 + list(params.method).index(method)
    rng = np.random.default_rng([place, seed, 7])
    indices, labels, hardness = tested_images(params, seed, n_test, folds)
    probabilities = answers(rng, labels, hardness, aim)
    accuracy = float((probabilities.argmax(1) == labels).mean())
    epoch = np.arange(1, epochs + 1)
    val = accuracy + 0.02 - 0.5 * np.exp(-epoch / (1.5 + rng.random())) + rng.normal(0, 0.008, epochs)
    val = np.clip(val, 0, 1)
    folder = params.run_dir(method, seed)
    folder.mkdir(parents=True)
    np.savez(folder / "predictions.npz", indices=indices, labels=labels, probabilities=probabilities)
    write_external(params, folder, rng, aim)
    if params.probed(method, seed):
        write_probe(folder, rng, params.probe.images)
    lines = ["epoch,lr,train_loss,train_acc,val_loss,val_acc,val_balanced_acc,val_auc,epoch_s"]
    lines += [
        f"{e},0.001,{1.5 / e:.5f},{min(1.0, v + 0.02):.5f},{0.4 + 1 / e:.5f},{v:.5f},{v:.5f},{min(1, v + 0.04):.5f},"
        f"{epoch_s:.3f}"
        for e, v in zip(epoch, val, strict=True)
    ]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    metrics = {"acc": accuracy, "balanced_acc": accuracy, "auc": accuracy, "loss": 0.3}
    record = {
        "profile": params.profile,
        "method": method,
        "seed": seed,
        "status": "complete",
        "failure": None,
        "fingerprint": f"{rng.integers(1 << 60):064x}",
        "settings": settings,
        "metrics": {"best_epoch": int(val.argmax()) + 1, "val": {**metrics, "acc": float(val.max())}, "test": metrics},
        "parameters": {
            "trainable": trainable,
            "total": total + (trainable if family == "adapters" else 0),
            "flops": flops,
        },
        "timings": {"epoch_s": epoch_s * float(rng.normal(1, 0.02)), "total_s": epoch_s * epochs},
        "data": {"train": round(600 * train["share"]), "val": 200, "test": n_test, "classes": CLASSES},
        "environment": {
            "python": "3.12.3",
            "torch": "2.13.0",
            "torchvision": "0.28.0",
            "platform": "Linux",
            "cpu": "Some CPU",
            "threads": 1,
            "gpu": None,
            "driver": None,
            "commit": "0123456789abcdef",
            "dirty": False,
            "date": "2026-01-02T03:04:05+00:00",
            **(environment or {}),
        },
    }
    (folder / "record.json").write_text(json.dumps(record))
    return record


def write_probe(folder, rng, images=None):
    """corruptions.npz and gradcam.npz of a run, for at most so many of its images: the harder, the more guesses."""
    with np.load(folder / "predictions.npz") as test:
        indices, labels, clean = test["indices"], test["labels"], test["probabilities"].argmax(1).astype(np.uint8)
    if images is not None and images < len(indices):
        places = np.linspace(0, len(indices) - 1, images).round().astype(int)
        indices, labels, clean = indices[places], labels[places], clean[places]
    hardness = np.array([0.25, 0.15, 0.05, 0.1, 0.2, 0.3])[:, None, None] * (np.arange(1, 6) / 3)[:, None]
    guesses = rng.integers(0, len(CLASSES), (len(CORRUPTIONS), 5, len(clean)), np.uint8)
    predicted = np.where(rng.random(guesses.shape) < hardness, guesses, clean)
    shared = {"indices": indices, "labels": labels, "clean": clean}
    np.savez(folder / "corruptions.npz", **shared, predicted=predicted, kinds=np.array(CORRUPTIONS))
    maps = rng.random((len(indices), 4, 4)) ** 2
    maps = (255 * maps / maps.max((1, 2), keepdims=True)).round().astype(np.uint8)
    np.savez(folder / "gradcam.npz", indices=indices, maps=maps)


def write_profile(params, skip=(), **options):
    """All runs of the profile but those in `skip`, pairs (method, seed)."""
    for method in params.method:
        for seed in params.seeds_of(method):
            if (method, seed) not in skip:
                write_run(params, method, seed, **options)


def everything(methods=("full", "head-only", "colora-blocks2-5", "vit-full", "medmamba"), **more):
    """A profile with all that results can hold: two folds twice, patients, other patients, probed runs.

    `summarise(everything())` writes every file of `pipelines.evidence.schemas` with rows, but labels.csv, for which
    there is `label_params`.
    """
    known = params(list(methods), seeds=range(4), probe={}, **more)
    external = [{"name": "elsewhere", "path": "scans/elsewhere"}]
    content = known.model_dump()
    content["data"]["external"] = external
    made = type(known).model_validate(content)
    write_profile(made, folds=2, n_test=80)
    write_patients(made, 160)
    return made


def edit_record(folder, change):
    """Apply `change(record)` to a run's record.json."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
