"""Transfer learning: the backbone is frozen, only the head trains."""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="head only", colours={"CNN": "#7A7A7A", "ViT": "#B38CA3"})


def adapt(model: Classifier) -> Classifier:
    model.freeze_backbone()
    return model
