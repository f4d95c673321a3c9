"""What a run starts from: device, data and network."""

from pipelines.data import prepared
from pipelines.profile import Params, ParamsError, Train, train_split


def set_up(params: Params, method: str, seed: int, settings: dict, device: str | None = None):
    """The device, the prepared data with the seed's splits, external data, and the method's network, initialised by the
    seed, there. Data are checked whole first; where runs are probed, so is that Grad-CAM knows the network.

    Raises:
        UserError: the data are not whole, or the method cannot be built.
    """
    import torch

    import baselines
    from pipelines.training import memory, step

    memory.keep()
    recipe = Train.model_validate(settings["train"])
    prepared.verify(params)
    device = step.pick_device(device, deterministic=recipe.deterministic)
    data = prepared.open_prepared(params.data_dir, seed, device, train_split(recipe))
    external = prepared.open_external(params.data_dir, params.data.external_names, device)
    weights = recipe.class_weights
    if isinstance(weights, list) and len(weights) != len(data.classes):
        raise ParamsError(
            f"train.class_weights of {method}: found {len(weights)}, expected one for each of "
            f"{', '.join(data.classes)}, in this order"
        )
    step.seed_everything(seed, 0)
    try:
        model = baselines.build(method, settings, num_classes=len(data.classes), image_size=data.image_size)
    except baselines.MethodError as error:
        raise ParamsError(str(error)) from error
    if params.probed(method, seed):
        from pipelines.training import gradcam

        gradcam.last_map(model)
    return device, data, external, model.to(device, memory_format=torch.channels_last)
