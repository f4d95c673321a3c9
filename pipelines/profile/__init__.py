"""The typed schema of params.yaml, and how such files are composed, read and checked."""

from pipelines.profile.base import ParamsError, Section
from pipelines.profile.data import train_split
from pipelines.profile.loading import compose, load, write
from pipelines.profile.recipe import Train
from pipelines.profile.schema import Params

__all__ = ["Params", "ParamsError", "Section", "Train", "compose", "load", "train_split", "write"]
