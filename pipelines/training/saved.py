"""Trained weights on disk: models/<profile>/<method>/<seed>/, written after a run's test and read to predict.

model.json           what one must know to use them (`ModelCard`)
weights.safetensors  every tensor, or those that training changed where the backbone is frozen
adapter_*            instead of it for CoLoRA: a folder that `colora.load_adapter` reads
"""

import shutil
from pathlib import Path

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

import baselines
import colora
from pipelines.data import prepared
from pipelines.data.images import NORMALISATION, Prepared
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params, Train
from pipelines.profile.base import explain
from pipelines.runs.record import Record, read_record
from pipelines.training.step import seed_everything

CARD, WEIGHTS = "model.json", "weights.safetensors"


class ModelCard(BaseModel):
    """What model.json holds. `settings` are the method's with a weights file by name and sha256; `keep` is "adapter" or
    "all"; `preprocessing` makes an image file what the network was trained on (`pipelines.data.preprocessing`), and
    `mean` and `std` then belong to RGB values in 0..1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    method: str
    seed: int
    fingerprint: str
    settings: dict
    keep: str
    classes: list[str]
    image_size: int
    preprocessing: dict
    mean: list[float]
    std: list[float]
    best_epoch: int
    test: dict[str, float]


def save(params: Params, record: Record, recipe: Train, model: torch.nn.Module, data: Prepared) -> None:
    """Write a trained network's folder anew, model.json last; of `train.keep: none` remove it.

    By default only what training changed is kept where something is frozen. A merge-reset CoLoRA network, whose frozen
    kernels moved, is kept whole whatever `train.keep` says.
    """
    folder = params.model_dir(record.method, record.seed)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    keep = recipe.keep or ("all" if all(p.requires_grad for p in model.parameters()) else "adapter")
    if keep == "none":
        return
    if record.settings.get("merge_reset", False):
        keep = "all"
    mean, std = NORMALISATION[recipe.input]
    card = ModelCard(
        profile=params.profile, method=record.method, seed=record.seed, fingerprint=record.fingerprint,
        settings=record.settings, keep=keep, classes=data.classes, image_size=data.image_size,
        preprocessing=prepared.read_manifest(params.data_dir).preprocessing.model_dump(mode="json"),
        mean=list(mean), std=list(std), best_epoch=record.metrics.best_epoch, test=record.metrics.test.model_dump(),
    )  # fmt: skip
    folder.mkdir(parents=True)
    if keep == "adapter" and record.settings["family"] == "colora":
        colora.save_adapter(model, folder)
    else:
        changed = {name for name, p in model.named_parameters() if p.requires_grad or keep == "all"}
        changed |= {name for name, _ in model.named_buffers()}
        tensors = {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items() if k in changed}
        records.write_atomically(folder / WEIGHTS, lambda file: file.write(safetensors.torch.save(tensors)))
    records.write_json(folder / CARD, card.model_dump())


def read_card(folder: Path) -> ModelCard:
    """Raises UserError where no trained network is, or its model.json is not one of ours."""
    path = folder / CARD
    if not path.is_file():
        raise UserError(
            f"{path}: no trained weights; fetch them with `dvc pull`, or delete the run's folder in results/ and "
            "train it again with `python -m pipelines.train` (train.keep: adapter or all)"
        )
    try:
        return ModelCard.model_validate(records.read_json(path, f"delete {folder} and train the run again"))
    except ValidationError as error:
        raise UserError(f"{explain(error, path, ModelCard)}; train the run again") from None


def load(
    folder: Path, params: Params, device: torch.device, *, merged: bool = True
) -> tuple[torch.nn.Module, ModelCard]:
    """A trained network in evaluation mode on the device, and its card; CoLoRA merged unless told otherwise.

    Adapters stand on the starting weights that the profile's parameters name, which must be those trained from.

    Raises:
        UserError: no or damaged weights, weights of another run than the results tell of, or starting weights other
            than those of the run.
    """
    card = read_card(folder)
    record = read_record(params.run_dir(card.method, card.seed))
    if record and (record.status, record.fingerprint) != ("complete", card.fingerprint):
        raise UserError(
            f"{folder}: weights of an earlier run than {params.run_dir(card.method, card.seed)} tells of "
            f"({record.status}); train it again with `python -m pipelines.train`, or fetch both with `dvc pull`"
        )
    whole = (folder / WEIGHTS).is_file() and card.keep == "all"
    settings = {key: value for key, value in card.settings.items() if key != "weights_sha256"}
    if not whole and settings.get("weights") not in ("random", "imagenet", None):
        settings["weights"] = _starting_weights(params, card)
    with torch.random.fork_rng(devices=[]):
        seed_everything(card.seed, 0)  # as before training: where the starting weights are random, these are they
        sizes = {"num_classes": len(card.classes), "image_size": card.image_size}
        model = baselines.build(card.method, settings, **sizes, weights="random" if whole else None)
    if (folder / WEIGHTS).is_file():
        _load_state(model, folder / WEIGHTS, whole)
    else:
        colora.load_adapter(model, folder)
    if merged and any(isinstance(module, colora.ColoraConv2d) for module in model.modules()):
        model = colora.merge_and_unload(model)
    return model.to(device, memory_format=torch.channels_last).eval(), card


def _starting_weights(params: Params, card: ModelCard) -> str:
    """The path of the weights file that the adapter stands on, by the profile, checked by content."""
    path = params.settings(card.method)["weights"]
    expected = card.settings.get("weights_sha256")
    file = Path(path).expanduser()
    found = records.sha256_file(file) if file.is_file() else None
    if found != expected:
        raise UserError(
            f"model.weights: {card.method} seed {card.seed} was trained from {card.settings['weights']} (sha256 "
            f"{str(expected)[:12]}); found {path} (sha256 {found[:12] if found else 'no such file'}); name that file"
        )
    return path


def _load_state(model, path: Path, whole: bool) -> None:
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); train the run again") from None
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    trained = {name for name, p in model.named_parameters() if p.requires_grad or whole}
    lost = sorted(trained & set(missing)) + sorted(unexpected)
    if lost:
        raise UserError(
            f"{path}: does not fit the network: {', '.join(lost[:3])}; it is of another version: train again"
        )
