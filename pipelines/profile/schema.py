"""The typed form of params.yaml: every key the pipeline reads, its type, its meaning.

DVC composes params.yaml from conf/ (Hydra); `load` turns it into `Params` and rejects unknown keys and
wrong types by name. An *method* is one configured method; its section holds only what differs from the
profile's `model` and `train` sections.

`python -m pipelines.params PROFILE` composes params.yaml for `dvc repro`, as `dvc exp run -S profile=PROFILE` does.
"""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from pipelines.runs import code


class ParamsError(ValueError):
    """A parameter file that cannot be used; the message names the file, the key, and what was expected."""


class Section(BaseModel):
    # Strict: "6" and true are no numbers. A path is written as a word, so it alone is read from one.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


LARGEST = 2**18  # bytes of a parameter file
MethodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]  # a folder's name too
Place = Annotated[Path, Strict(False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Phantom(Section):
    """Seeded generator of OCT-like B-scans; `domain` picks the scanner the pictures imitate."""

    train: int = Field(gt=0)
    val: int = Field(gt=0)
    test: int = Field(gt=0)
    seed: int = 0
    domain: Literal["source", "target"] = "target"


class Folder(Section):
    """Class folders of images, split into patient-grouped folds."""

    path: Place
    pattern: str = r"(?P<label>[^-]+)-(?P<patient>[^-]+)-(?P<index>[^-]+)"
    folds: int = Field(5, ge=2)
    val_share: float = Field(0.125, gt=0, lt=1)


class MedMNIST(Section):
    """A 2-D MedMNIST set, by medmnist's own name and download."""

    dataset: str = "octmnist"
    cache: Place = Path("~/.medmnist")


class Balanced(Section):
    """The first `per_class` training images of each class."""

    per_class: int = Field(7754, gt=0)


class Distilled(Section):
    """Per class, ascending by predictive entropy, ranks keep[0] up to but not including keep[1]."""

    entropies: Place
    keep: Annotated[tuple[int, int], Strict(False)] = (690, 7730)


class Data(Section):
    source: Literal["phantom", "folder", "medmnist"]
    image_size: int = Field(gt=0)
    mode: Literal["full", "balanced", "distilled"] = "full"
    # Of the training patients (images, where the data name none): nested subsets that methods may train on (train.share).
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = []
    phantom: Phantom | None = None
    folder: Folder | None = None
    medmnist: MedMNIST | None = None
    balanced: Balanced | None = None
    distilled: Distilled | None = None

    @model_validator(mode="after")
    def _sections_present(self):
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source!r}, so a section data.{self.source} is needed")
        if self.mode != "full" and self.balanced is None:
            raise ValueError(f"mode {self.mode!r} needs a section data.balanced")
        if self.mode == "distilled" and self.distilled is None:
            raise ValueError("mode 'distilled' needs a section data.distilled")
        if len({train_split({"share": share}) for share in self.shares}) < len(self.shares):
            raise ValueError(f"shares: each counts once, found {self.shares}")
        return self


class Train(Section):
    """The training recipe. A method may override any of these under `method.NAME.train`."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    eval_batch_size: int = Field(128, gt=0)
    lr: float = Field(gt=0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(1e-5, ge=0)
    schedule: Literal["constant", "one-cycle", "step"] = "constant"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    augment: Literal["none", "authors", "flip", "standard"] = "flip"
    input: Literal["imagenet", "unit", "half", "raw"] = "imagenet"
    precision: Literal["float32", "bfloat16"] = "float32"
    deterministic: bool = True
    save_entropies: bool = False
    share: float = Field(1.0, gt=0, le=1)  # of the training patients (images, where the data name none)
    micro_batch: int | None = Field(None, gt=0)  # a batch in pieces of this many, where it does not fit the memory
    compile: bool = False  # by torch.compile


def train_split(train: dict) -> str:
    """The name of the split that a recipe trains on: "train", or "train@0.1" for a tenth of its patients."""
    return "train" if train["share"] == 1 else f"train@{train['share']:g}"


class Tune(Section):
    """Learning rates that every method tries on the validation split of one seed; without this section the rate is
    `train.lr`, as it is for a method whose own section states one."""

    lrs: list[float] = Field(min_length=1)
    epochs: int = Field(gt=0)
    seed: int = 0


class Probe(Section):
    """What trained networks are asked beyond their test: corrupted test images, and where they looked (Grad-CAM).

    `seeds`: of which runs, all by default. `images`: at most this many of the test images, spread evenly.
    """

    seeds: list[int] | None = None
    images: int | None = Field(None, gt=0)


class Evidence(Section):
    """What the statistics take for a difference that matters: `margin`, of accuracy, for equivalence and power."""

    margin: float = Field(0.01, gt=0, lt=1)


class Pretrain(Section):
    """Train the small backbones of the quick profile on another phantom domain, whatever recipe the methods have."""

    backbones: list[str] = Field(min_length=1)
    phantom: Phantom
    epochs: int = Field(gt=0)
    lr: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = 0


class Cost(Section):
    """What `pipelines.cost` measures: every method at the profile's image size, and what stands here.

    `rounds`: turns of each method; six or more give intervals. `batch_sizes`: the recipe's where none is stated.
    `peers_of`: CoLoRA methods that get peers, the first on each backbone where none is stated. `inference_batch`: images
    of the larger requests; the smaller have one. `block_s`: seconds of steps that one turn times at least. `images`:
    training images of an epoch where no data are prepared to count them. `layers`: whether the selective scan and the
    KAN layers are measured on their own too, beside a reference and a floor.
    """

    class Setting(Section):
        """Some methods on another backbone, at another image size, in another precision, or compiled."""

        backbone: str
        image_size: int = Field(gt=0)
        batch_sizes: list[Annotated[int, Field(gt=0)]] = Field(min_length=1)
        methods: list[str] = Field(min_length=1)
        precision: Literal["float32", "bfloat16"] | None = None
        compile: bool | None = None

    class Growth(Section):
        """Sweeps of one value each, the others being the profile's: how time and memory grow."""

        methods: list[str] = Field(min_length=1)
        batch_sizes: list[Annotated[int, Field(gt=0)]] = []
        image_sizes: list[Annotated[int, Field(gt=0)]] = []
        ranks: list[Annotated[int, Field(gt=0)]] = []
        rounds: int = Field(7, gt=0)

    rounds: int = Field(20, gt=0)
    batch_sizes: list[Annotated[int, Field(gt=0)]] = []
    peers_of: list[str] | None = None
    inference_batch: int = Field(32, gt=1)
    block_s: float = Field(0.05, gt=0)
    images: int | None = Field(None, gt=0)
    settings: list[Setting] = []
    growth: Growth | None = None
    layers: bool = False


class Params(Section):
    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seeds: list[Seed] = Field(min_length=1)
    data: Data
    model: dict[str, Any]
    train: Train
    method: dict[MethodName, dict[str, Any]] = Field(min_length=1)
    tune: Tune | None = None
    pretrain: Pretrain | None = None
    allow_missing: bool = False
    evidence: Evidence = Evidence()
    probe: Probe | None = None
    cost: Cost | None = None

    @model_validator(mode="after")
    def _seeds_fit(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each counts once, found {self.seeds}")
        if self.tune and self.tune.seed not in self.seeds:
            raise ValueError(f"tune.seed: expected one of seeds {self.seeds}, found {self.tune.seed}")
        strangers = set(self.probe.seeds or []) - set(self.seeds) if self.probe else ()
        if strangers:
            raise ValueError(f"probe.seeds: expected some of seeds {self.seeds}, found {self.probe.seeds}")
        return self

    def settings(self, method: str) -> dict[str, Any]:
        """The method's section with the profile's `model` and `train` filled in; `train` is a checked dict.

        `model.weights` is one word or path for all, or one a backbone; here it is the one of the method's backbone.

        Raises:
            ParamsError: no such method, or a training key of the method that is unknown or mistyped.
        """
        if method not in self.method:
            raise ParamsError(
                f"no method {method!r} in profile {self.profile!r}{_near(method, self.method)}; methods: {', '.join(self.method)}"
            )
        section = self.method[method]
        family, families = section.get("family"), code.families()
        if not isinstance(family, str) or family not in families:
            raise ParamsError(
                f"method.{method}.family: found {_short(family)}{_near(str(family), families)}; "
                f"expected one of {', '.join(families)}"
            )
        # A family with a network of its own has nothing of the profile's backbone.
        model = self.model if families[family] == "adapt" else {"backbone": family, "weights": "random"}
        if families[family] == "network":
            ignored = [key for key in ("backbone", "head", "batchnorm") if key in section]
            if ignored:
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
                    f"method.{method}: {key} is {_short(value)} (model.{key} or its own), expected a word or a path"
                )
        changes = section.get("train", {})
        if not isinstance(changes, dict):
            raise ParamsError(f"method.{method}.train: found {_short(changes)}, expected a mapping of training keys")
        try:
            train = Train.model_validate({**self.train.model_dump(), **changes})
        except ValidationError as error:
            raise ParamsError(_explain(error, f"profile {self.profile}", Train, f"method.{method}.train.")) from None
        return {**found, "train": train.model_dump()}

    def tuned(self, method: str) -> bool:
        """Whether the method's learning rate is chosen by `pipelines.tune` rather than stated."""
        own = self.method[method].get("train")
        return self.tune is not None and not (isinstance(own, dict) and "lr" in own)

    def probed(self, seed: int) -> bool:
        """Whether a seed's runs are probed (`pipelines.probe`) after their test."""
        return self.probe is not None and (self.probe.seeds is None or seed in self.probe.seeds)

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


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: the file is missing, is not YAML, or a key is unknown, missing or mistyped.
    """
    path = Path(path)
    if not path.is_file():
        raise ParamsError(
            f"{path}: no such file; "
            "compose one with `dvc exp run -S profile=quick`, or name another with --profile-file"
        )
    try:
        if path.stat().st_size > LARGEST:
            raise ParamsError(f"{path}: {path.stat().st_size:,} bytes, expected at most {LARGEST:,}")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except ParamsError:
        raise
    except Exception as error:  # beside YAMLError what its makers of dates, numbers and so on raise
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(_explain(error, path, Params)) from None


class _Loader(yaml.SafeLoader):
    """Plain values alone, without aliases (a small file of them can stand for more than any memory holds), and every
    key once, where the YAML library would keep the last.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "found an alias; write the value out", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"found {key.value!r} twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def compose(profile: str, conf: str | Path = "conf") -> Params:
    """The parameters of `conf/profile/PROFILE.yaml`, composed by Hydra just as DVC does.

    Raises:
        ParamsError: no such profile, or a key is unknown, missing or mistyped.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    folder = Path(conf).resolve()
    _check_profile(profile, folder)
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        content = OmegaConf.to_container(hydra_compose("config", overrides=[f"profile={profile}"]), resolve=True)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(_explain(error, f"{conf}/profile/{profile}.yaml", Params)) from None


def write(profile: str, path: str | Path = "params.yaml", conf: str | Path = "conf") -> None:
    """Compose a profile into `path` with DVC's own Hydra support, so that both write the same text.

    Raises:
        ParamsError: as `compose`.
    """
    from dvc.utils.hydra import compose_and_dump

    compose(profile, conf)
    compose_and_dump(str(path), str(Path(conf).resolve()), None, "config", "", [f"profile={profile}"])


def _check_profile(profile, folder):
    names = sorted(p.stem for p in (folder / "profile").glob("*.yaml"))
    if profile not in names:
        raise ParamsError(
            f"no profile {profile!r}{_near(profile, names)}; profiles in {folder.name}/profile: {', '.join(names)}"
        )


def _explain(error: ValidationError, where, model, prefix: str = "") -> str:
    lines = []
    for e in error.errors():
        key = prefix + ".".join(str(part) for part in e["loc"])
        if e["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{_near(str(e['loc'][-1]), _fields_at(model, e['loc'][:-1]))}")
        elif e["type"] == "missing":
            lines.append(f"missing key {key!r}")
        else:
            found = "" if e["type"] == "value_error" else f", found {_short(e['input'])}"
            lines.append(f"{key or 'top level'}: {e['msg'].removeprefix('Value error, ')}{found}")
    return f"{where}: " + "; ".join(lines)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _fields_at(model, loc) -> list[str]:
    """The field names of the section at `loc`, for the near-name hint."""
    for part in loc:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        options = getattr(field.annotation, "__args__", (field.annotation,))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _near(name: str, names) -> str:
    close = difflib.get_close_matches(name, list(names), n=3)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""


def main(argv=None) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m pipelines.params", description="Compose params.yaml from conf/.")
    parser.add_argument("profile", help="a profile of conf/profile")
    try:
        write(parser.parse_args(argv).profile)
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
