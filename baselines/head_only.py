"""Transfer learning: the backbone is frozen, only the head trains."""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="head only", colours={"CNN": "#8A8A8A", "ViT": "#8F1D78"})


def adapt(model: Classifier) -> Classifier:
    model.freeze_backbone()
    return model
