"""Transfer learning: the body is frozen, only the head trains."""

from baselines.backbones import Classifier


def adapt(model: Classifier) -> Classifier:
    model.freeze_body()
    return model
