"""The typed form of params.yaml as a whole: every key the pipeline reads, its type, its meaning.

A *method* is one configured way of training; its section holds only what differs from the profile's `model` and `train`
sections.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from baselines import families
from pipelines.profile.base import Name, ParamsError, Section, Seed, explain, near, short
from pipelines.profile.data import Data
from pipelines.profile.recipe import Cost, Pretrain, Probe, Report, Train, Tune


class Params(Section):
    """A whole profile."""

    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """The name, that of its file; of `results/<profile>`."""
    seeds: list[Seed] = Field(min_length=1)
    """Of a method's runs, unless it has its own `seeds`."""
    data: Data
    model: dict[str, Any]
    """What methods on a backbone start from, unless their own section says otherwise: backbone, weights (one, or
    one a backbone), head, batchnorm, input_size."""
    train: Train
    method: dict[Name, dict[str, Any]] = Field(min_length=1)
    """A section a method: `family`, the family's options, and what differs from `model` and `train`."""
    tune: Tune | None = None
    pretrain: Pretrain | None = None
    allow_missing: bool = False
    """A missing run is a hole, not an error."""
    probe: Probe | None = None
    cost: Cost | None = None
    log: list[Literal["dvclive", "tensorboard"]] = []
    """Where training curves go too, if the package is installed."""
    report: Report = Report()

    @model_validator(mode="after")
    def _seeds_fit(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each counts once, found {self.seeds}")
        if self.tune and len(set(self.tune.lrs)) < len(self.tune.lrs):
            raise ValueError(f"tune.lrs: each counts once, found {self.tune.lrs}")
        if self.tune and (len(set(self.tune.seeds)) < len(self.tune.seeds) or set(self.tune.seeds) - set(self.seeds)):
            raise ValueError(f"tune.seeds: expected some of seeds {self.seeds}, each once, found {self.tune.seeds}")
        for method, section in self.method.items():
            own = section.get("seeds", self.seeds)
            if not isinstance(own, list) or not own or any(type(s) is not int or not 0 <= s < 2**32 for s in own):
                raise ValueError(f"method.{method}.seeds: expected a list of numbers from 0, found {short(own)}")
            if len(set(own)) < len(own):
                raise ValueError(f"method.{method}.seeds: each counts once, found {own}")
        if self.probe and (unknown := sorted(set(self.probe.methods or []) - set(self.method))):
            raise ValueError(f"probe.methods: no method {unknown[0]!r}{near(unknown[0], self.method)}")
        if self.probe and set(self.probe.seeds or []) - set(self.all_seeds):
            raise ValueError(f"probe.seeds: expected some of seeds {self.all_seeds}, found {self.probe.seeds}")
        return self

    def settings(self, method: str) -> dict[str, Any]:
        """The method's section with the profile's `model` and `train` filled in; `train` is a checked dict.

        `model.weights` is one word or path for all, or one a backbone; here it is the one of the method's backbone.

        Raises:
            ParamsError: no such method, or a training key of the method that is unknown or mistyped.
        """
        if method not in self.method:
            raise ParamsError(
                f"no method {method!r} in profile {self.profile!r}{near(method, self.method)}; "
                f"methods: {', '.join(self.method)}"
            )
        section = {key: value for key, value in self.method[method].items() if key != "seeds"}
        family, known = section.get("family"), families()
        if not isinstance(family, str) or family not in known:
            raise ParamsError(
                f"method.{method}.family: found {short(family)}{near(str(family), known)}; "
                f"expected one of {', '.join(known)}"
            )
        model = self.model
        if known[family].kind == "network":  # which has nothing of the profile's backbone
            model = {"backbone": family, "weights": "random"}
            if ignored := [key for key in ("backbone", "head", "batchnorm") if key in section]:
                raise ParamsError(
                    f"method.{method}.{ignored[0]}: family {family!r} has a network of its own; leave it out"
                )
        found = {**model, **section}
        if "backbone" not in found:
            raise ParamsError(f"method.{method}: no backbone; set model.backbone")
        if isinstance(found.get("weights"), dict) and isinstance(found["backbone"], str):
            if found["backbone"] not in found["weights"]:
                raise ParamsError(
                    f"method.{method}: model.weights has none for backbone {found['backbone']!r}, only for "
                    f"{', '.join(map(repr, found['weights']))}; add it, or set method.{method}.weights"
                )
            found["weights"] = found["weights"][found["backbone"]]
        for key in ("backbone", "weights", "head", "batchnorm"):
            value = found.get(key, "")
            if not isinstance(value, str):
                raise ParamsError(
                    f"method.{method}: {key} is {short(value)} (model.{key} or its own), expected a word or a path"
                )
        changes = section.get("train", {})
        if not isinstance(changes, dict):
            raise ParamsError(f"method.{method}.train: found {short(changes)}, expected a mapping of training keys")
        try:
            train = Train.model_validate({**self.train.model_dump(), **changes})
        except ValidationError as error:
            raise ParamsError(explain(error, f"profile {self.profile}", Train, f"method.{method}.train.")) from None
        return {**found, "train": train.model_dump()}

    def seeds_of(self, method: str) -> list[int]:
        """The seeds of a method's runs: its own `seeds`, else the profile's."""
        return list(self.method[method].get("seeds", self.seeds))

    @property
    def all_seeds(self) -> list[int]:
        """Every seed that a run of the profile has, in ascending order."""
        return sorted({seed for method in self.method for seed in self.seeds_of(method)} | set(self.seeds))

    def tuned(self, method: str) -> bool:
        """Whether the method's learning rate is chosen by `pipelines.tune` rather than stated."""
        own = self.method[method].get("train")
        return self.tune is not None and not (isinstance(own, dict) and "lr" in own)

    def probed(self, method: str, seed: int) -> bool:
        """Whether a run is probed (`pipelines.training.probe`) after its test."""
        probe = self.probe
        return (
            probe is not None
            and (probe.seeds is None or seed in probe.seeds)
            and (probe.methods is None or method in probe.methods)
        )

    def tune_file(self, method: str) -> Path:
        """Where `pipelines.tune` records a method's trials and its choice."""
        return self.results_dir / "tune" / f"{method}.json"

    @property
    def data_dir(self) -> Path:
        return Path("data") / self.profile

    @property
    def results_dir(self) -> Path:
        return Path("results") / self.profile

    def run_dir(self, method: str, seed: int) -> Path:
        return self.results_dir / "runs" / method / str(seed)

    def model_dir(self, method: str, seed: int) -> Path:
        """Where a run's trained weights are kept."""
        return Path("models") / self.profile / method / str(seed)
