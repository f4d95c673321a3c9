"""What was declared before the runs: the method that the claims are about, and its contrasts. Read from claims.yaml."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.profile.base import Section, explain

CLAIMS = Path(__file__).parents[2] / "report" / "claims" / "claims.yaml"
MOST = 8  # contrasts of one family


class Comparator(Section):
    """Gains that are claimed over a comparator, by metric ("none": the contrast is declared, no size is claimed)."""

    kind: Literal["ViT", "state space", "KAN"] | None = None
    accuracy: float | Literal["none"]
    auc: float | Literal["none"] | None = None
    published_parameters: int | None = Field(None, gt=0)

    def size(self, metric: str) -> float | None:
        found = getattr(self, metric)
        return None if found == "none" else found


class Declared(Section):
    method: str
    margin: float = Field(gt=0, lt=1)
    external_metric: Literal["accuracy", "balanced_accuracy"]
    against: dict[str, Comparator] = Field(min_length=1, max_length=MOST)

    @model_validator(mode="after")
    def _not_itself(self):
        if self.method in self.against:
            raise ValueError(f"against: {self.method} is the method itself; name others")
        return self

    def contrasts(self, data: str) -> list[tuple[str, str, float | None]]:
        """(comparator, metric, claimed size) of each contrast on a data set: "test", or the name of external data."""
        metric = "accuracy" if data == "test" else self.external_metric
        found = [(name, metric, own.size("accuracy")) for name, own in self.against.items()]
        return found + [(name, "auc", own.size("auc")) for name, own in self.against.items() if own.auc is not None]


@dataclass(frozen=True)
class Chosen:
    """What a profile has of the declared contrasts: the content of chosen.json.

    method: declared, None without a run of it. against: comparators with a run. methods: both, in the profile's order.
    absent: declared names without a run. folds: of the test images, 1 where all runs share one test set. repeats: of
    the folds, by method. external: names of external data. shares: {share of the labels: {declared name: the method
    that it is called at that share}}.
    """

    method: str | None
    against: list[str]
    methods: list[str]
    absent: list[str]
    margin: float
    level: float
    folds: int
    repeats: dict[str, float]
    external: list[str]
    shares: dict[str, dict[str, str]]


def present(params: Params, there: Collection[str]) -> list[str]:
    """The methods to show, in the profile's order: of those that are there the declared ones, or else the first nine.

    A profile without the declared method is about something else than the paper.
    """
    asked = read()
    names = {asked.method, *asked.against} & set(there) if asked.method in there else set(there)
    return [method for method in params.method if method in names][: MOST + 1]


@cache
def read(path: Path = CLAIMS) -> Declared:
    """The declared part of claims.yaml.

    Raises:
        UserError: the file cannot be read, or a key or value is unknown, missing or mistyped.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Declared.model_validate(content["declared"])
    except ValidationError as error:
        raise UserError(explain(error, path, Declared, "declared.")) from None
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no section `declared` to be read ({error!r})") from None
