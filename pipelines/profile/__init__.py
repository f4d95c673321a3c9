"""The typed schema of params.yaml, and how such files are composed, read and checked."""

from pipelines.profile.base import ParamsError, Section
from pipelines.profile.cost import Cost
from pipelines.profile.data import Balanced, Data, Distilled, Folder, MedMNIST, Phantom, Torchvision, train_split
from pipelines.profile.loading import compose, load, write
from pipelines.profile.recipe import Pretrain, Probe, Report, Train, Tune
from pipelines.profile.schema import Params

__all__ = [
    "Balanced",
    "Cost",
    "Data",
    "Distilled",
    "Folder",
    "MedMNIST",
    "Params",
    "ParamsError",
    "Phantom",
    "Pretrain",
    "Probe",
    "Report",
    "Section",
    "Torchvision",
    "Train",
    "Tune",
    "compose",
    "load",
    "train_split",
    "write",
]
