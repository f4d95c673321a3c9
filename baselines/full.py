"""Full fine-tuning: every parameter trains, BatchNorm included."""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="full fine-tuning", colours={"CNN": "#111111", "ViT": "#8F1D78"})


def adapt(model: Classifier) -> Classifier:
    return model.requires_grad_(True)
