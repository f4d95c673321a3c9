"""Backbones of the quick profile, trained on another phantom domain, in place of ImageNet weights."""

from pathlib import Path

from pipelines.files import records
from pipelines.profile import Params, Train


def pretrain(params: Params) -> None:
    """Train and write the weights; without a `pretrain` section only the (empty) folder for them is made."""
    folder, recipe = Path("weights") / params.profile, params.pretrain
    folder.mkdir(parents=True, exist_ok=True)
    if recipe is None:
        print(f"profile {params.profile}: no pretrain section, nothing to train")
        return

    import torch

    from pipelines.data import sources
    from pipelines.data.images import Prepared

    data = params.data.model_copy(update={"source": "phantom", "phantom": recipe.phantom, "mode": "full"})
    read = sources.read(data, [recipe.seed])
    prepared = Prepared(torch.from_numpy(read.images), torch.from_numpy(read.labels), read.splits, read.classes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number decides the last digits, and so whether finished runs are recognised
    try:
        for backbone in recipe.backbones:
            _train(params, prepared, backbone, folder / f"{backbone}.safetensors")
    finally:
        torch.set_num_threads(threads)


def _train(params: Params, data, backbone: str, target: Path) -> None:
    import torch
    from safetensors.torch import save
    from tqdm import tqdm

    from baselines.backbones import classifier
    from pipelines.training import loop, step
    from pipelines.training.loaders import make_loaders

    recipe = params.pretrain
    own = {"epochs": recipe.epochs, "lr": recipe.lr, "batch_size": recipe.batch_size}
    train = Train(**own, schedule="one-cycle", input=params.train.input)
    device = step.pick_device(None, deterministic=True)
    step.seed_everything(recipe.seed, 0)
    sizes = {"num_classes": len(data.classes), "image_size": params.data.image_size}
    model = classifier(backbone=backbone, weights="random", **sizes).to(device, memory_format=torch.channels_last)
    loaders = make_loaders(model, data, train, device)
    with tqdm(total=recipe.epochs, desc=f"pretrain {backbone}", unit="epoch", disable=None, leave=False) as bar:
        fit = loop.fit(model, loaders, train, seed=recipe.seed, device=device, on_epoch=lambda row: bar.update())
    model.load_state_dict(fit.best_state)
    state = {name: value.contiguous().cpu() for name, value in model.backbone.state_dict().items()}
    records.write_atomically(target, lambda file: file.write(save(state)))
    best = fit.curves[fit.best_epoch - 1]
    print(f"{target}: validation accuracy {best['val_acc']:.4f} on the source domain, epoch {fit.best_epoch}")
