"""Train the small backbone of the quick profile on another phantom domain, as ImageNet weights stand to OCT images.

Writes the body's best-epoch state to `model.weights` (safetensors). Run `python -m pipelines.pretrain`.
"""

import argparse
import sys
from pathlib import Path

from pipelines import records
from pipelines.params import Params, ParamsError, Train, load


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.pretrain", description=__doc__)
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        run(load(args.profile_file))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(params: Params) -> None:
    """Train and write the weights; without a `pretrain` section only the (empty) folder for them is made.

    Raises:
        ParamsError: `model.weights` is no file in the folder that the stage owns.
    """
    folder = Path("weights") / params.profile
    folder.mkdir(parents=True, exist_ok=True)
    if params.pretrain is None:
        print(f"profile {params.profile}: no pretrain section, nothing to train")
        return

    import torch
    from safetensors.torch import save
    from tqdm import tqdm

    from baselines.backbones import classifier
    from pipelines import loop, sources
    from pipelines.images import Prepared

    recipe = params.pretrain
    target = params.model.get("weights")
    if Path(str(target)).parent != folder:
        raise ParamsError(f"model.weights: found {target!r}, expected {folder}/NAME.safetensors for pretrain to write")
    data = params.data.model_copy(update={"source": "phantom", "phantom": recipe.phantom, "mode": "full"})
    read = sources.read(data, [recipe.seed])
    prepared = Prepared(torch.from_numpy(read.images), torch.from_numpy(read.labels), read.splits, read.classes)
    train = Train(
        epochs=recipe.epochs,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        schedule="one-cycle",
        input=params.train.input,
    ).model_dump()
    device = loop.pick_device(None, deterministic=True)
    loop.seed_everything(recipe.seed, 0)
    model = classifier(
        backbone=params.model["backbone"],
        weights="random",
        num_classes=len(read.classes),
        image_size=params.data.image_size,
    ).to(device, memory_format=torch.channels_last)
    with tqdm(total=recipe.epochs, desc="pretrain", unit="epoch", disable=None, leave=False) as bar:
        fit = loop.fit(model, prepared, train, seed=recipe.seed, device=device, on_epoch=lambda row: bar.update())
    body = {
        key.removeprefix("body."): value.contiguous().cpu()
        for key, value in fit.best_state.items()
        if key.startswith("body.")
    }
    records.write_atomically(Path(target), lambda file: file.write(save(body)))
    best = fit.curves[fit.best_epoch - 1]
    print(f"{target}: validation accuracy {best['val_acc']:.4f} on the source domain, epoch {fit.best_epoch}")


if __name__ == "__main__":
    sys.exit(main())
