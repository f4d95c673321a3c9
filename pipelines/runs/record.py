"""A run's record: what it is, what came out, and where. Written last, so that a folder with one is whole."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.files.errors import UserError
from pipelines.files.records import read_json, write_json
from pipelines.profile import Train
from pipelines.profile.base import explain

Count = Annotated[int, Field(ge=0, le=2**53)]  # no count is higher, and up to it numbers with a point are exact


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Scores(_Part):
    """Of one test. AUC is macro, one class against the rest; None where a class has no image."""

    acc: float
    balanced_acc: float
    auc: float | None
    loss: float


class Metrics(_Part):
    best_epoch: int = Field(gt=0)
    val: Scores
    test: Scores
    external: dict[str, Scores] = {}


class Parameters(_Part):
    trainable: Count
    total: Count
    flops: Count


class DataCounts(_Part):
    """Images of each split, and the names of the classes."""

    train: Count
    val: Count
    test: Count
    classes: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self):
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected names that differ, found {self.classes}")
        return self


class Timings(_Part):
    """Seconds. `epoch_s`: of the median epoch without the first, or of the only one. `total_s`: of the whole run, with
    what it was resumed from.
    """

    epoch_s: float | None
    total_s: float


class Record(_Part):
    """record.json. `settings`: the method's, with its recipe under `train` and a weights file by name and sha256.
    `environment`: versions, machine, commit (`pipelines.runs.environment`).
    """

    profile: str
    method: str
    seed: Count
    status: Literal["complete", "failed"]
    failure: str | None = None
    fingerprint: str
    settings: dict
    metrics: Metrics | None = None
    parameters: Parameters
    data: DataCounts
    timings: Timings | None = None
    environment: dict

    @model_validator(mode="after")
    def _complete_with_results(self):
        if self.status == "complete" and (self.metrics is None or self.timings is None):
            raise ValueError("a complete record has metrics and timings")
        return self

    @field_validator("settings")
    @classmethod
    def _settings_of_a_method(cls, settings: dict) -> dict:
        if not isinstance(settings.get("family"), str):
            raise ValueError(f"settings.family: expected a family's name, found {settings.get('family')!r}")
        Train.model_validate(settings.get("train"))
        return settings


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder, or None where there is none yet.

    Raises:
        UserError: record.json is there but is no record; the message says what is wrong and how to make it again.
    """
    path = folder / "record.json"
    if not path.exists():
        return None
    advice = f"delete {folder} and train the run again"
    try:
        return Record.model_validate(read_json(path, advice))
    except ValidationError as error:
        raise UserError(f"{explain(error, path, Record)}; {advice}") from None


def write_record(folder: Path, record: Record) -> None:
    write_json(folder / "record.json", record.model_dump(mode="json"))


def is_complete(folder: Path, fingerprint: str, *more_files: str, classes: list[str] | None = None) -> bool:
    """Whether the folder holds the finished run with this fingerprint, all files present, `more_files` too.

    classes: as the data call them now, where that is asked; renamed ones have the same images.
    """
    record = read_record(folder)
    return (
        record is not None
        and record.status == "complete"
        and record.fingerprint == fingerprint
        and classes in (None, record.data.classes)
        and all((folder / name).is_file() for name in ("curves.csv", "predictions.npz", *more_files))
    )
