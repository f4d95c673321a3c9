"""Parameters and FLOPs of every method of a profile; needs no weights and computes nothing.

FLOPs are those of the forward pass of one image, two a multiply-accumulate, as torch counts them: matrix products,
convolutions and attention, and 9 a state and step of a selective scan; elementwise work is left out.
"""

from pipelines.profile import Params


def count(params: Params, num_classes: int = 4) -> dict[str, dict]:
    """`{method: {"trainable": n, "total": n, "flops": n, "backbone": name}}` for every method of the profile.

    Raises:
        ParamsError, baselines.MethodError: a method's section is wrong.
    """
    counts = {}
    for method in params.method:
        settings = params.settings(method)
        counted = count_method(method, settings, num_classes=num_classes, image_size=params.data.image_size)
        counts[method] = {**counted, "backbone": settings["backbone"]}
    return counts


def count_method(method: str, settings: dict, *, num_classes: int, image_size: int) -> dict[str, int]:
    """Trained and all parameters of a method, and the FLOPs of a forward pass of one image, from shapes alone.

    Raises:
        baselines.MethodError: the method's section is wrong.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import baselines

    with torch.device("meta"):  # shapes without memory
        model = baselines.build(
            method, settings, num_classes=num_classes, image_size=image_size, weights="random"
        ).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, image_size, image_size))
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "trainable": sum(n for n, trained in sizes if trained),
        "total": sum(n for n, _ in sizes),
        "flops": counter.get_total_flops(),
    }


def table(counts: dict[str, dict]) -> str:
    """What `count` found as lines of text."""
    import pandas as pd

    frame = pd.DataFrame.from_dict(counts, orient="index")
    frame["share"], frame["MFLOPs"] = frame.trainable / frame.total, frame.flops / 1e6
    formats = dict.fromkeys(("trainable", "total"), "{:,}".format) | {
        "share": "{:.2%}".format,
        "MFLOPs": "{:,.1f}".format,
    }
    return frame.to_string(columns=["backbone", *formats], formatters=formats)
