"""What can be known before training: whether methods can be built, and whether their precision suits the processor."""

import sys
import warnings
from pathlib import Path

from pipelines.profile import Params, ParamsError, Train


def check(params: Params, methods: list[str] | None = None, device: str | None = None) -> None:
    """Build the methods (by default all) on the meta device, which takes no memory, with their weights where a file of
    them is there; and warn of a precision that is slow here.

    Raises:
        ParamsError: some cannot be built; every one is named with its reason.
    """
    import torch

    import baselines

    problems, fit, sizes = [], set(), {"num_classes": 4, "image_size": params.data.image_size}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-meta parameter in the checkpoint")  # read to be compared
        for method in params.method if methods is None else methods:
            settings = params.settings(method)
            start = settings.get("weights", "random")
            weights = (settings["backbone"], settings.get("input_size"), start)
            if weights in fit or start in ("random", "imagenet") or not Path(start).expanduser().is_file():
                start = "random"
            try:
                model = baselines.build(method, settings, **sizes, weights=start)
                fit.add(weights)
                if (pieces := settings["train"]["micro_batch"]) and updates_statistics(model.train()):
                    raise ValueError(
                        f"train.micro_batch is {pieces}, but it updates BatchNorm statistics, "
                        "which need the whole batch; leave it out and lower train.batch_size"
                    )
                if any(params.probed(method, seed) for seed in params.seeds_of(method)):
                    from pipelines.training import gradcam

                    gradcam.last_map(model)
            except ValueError as error:
                named = str(error).startswith(f"method {method!r}")
                problems.append(str(error) if named else f"method {method!r}: {error}")
    if problems:
        raise ParamsError(f"profile {params.profile}: " + "\n  ".join(problems))
    warn_of_slow_precision(params, methods, device)


def updates_statistics(model) -> bool:
    """Whether BatchNorm statistics of the network move in training, as it stands."""
    import torch

    return any(m.training for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))


def warn_of_slow_precision(params: Params, methods: list[str] | None = None, device: str | None = None) -> None:
    """Say on stderr what bfloat16 costs on a processor without instructions for it, and which key to change."""
    recipes = {method: Train.model_validate(params.settings(method)["train"]) for method in methods or params.method}
    slow = [method for method, recipe in recipes.items() if recipe.precision == "bfloat16"]
    if not slow or has_bfloat16():
        return
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        key = "train.precision" if len(slow) == len(recipes) else f"method.{slow[0]}.train.precision"
        print(
            f"warning: {key} is bfloat16, for which this processor has no instructions (avx512_bf16, amx_bf16): "
            f"training will take 10 to 40 times as long; set {key}: float32, or train on a GPU",
            file=sys.stderr,
        )


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor computes in bfloat16; taken for granted where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return True
    flags = [line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))]
    return not flags or bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags[0]))
