"""Full fine-tuning: every parameter trains, BatchNorm included."""

from baselines.backbones import Classifier


def adapt(model: Classifier) -> Classifier:
    return model.requires_grad_(True)
