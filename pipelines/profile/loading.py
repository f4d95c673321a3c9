"""Parameter files: read and checked, or composed of conf/ by Hydra as DVC does it."""

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipelines.profile.base import ParamsError, explain, near
from pipelines.profile.schema import Params


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: the file is missing, is not YAML, or a key is unknown, missing or mistyped.
    """
    path = Path(path)
    if not path.is_file():
        raise ParamsError(
            f"{path}: no such file; "
            "compose one with `python -m pipelines.params PROFILE`, or name another with --profile-file"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except Exception as error:  # beside YAMLError what its makers of dates, numbers and so on raise
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(content).__name__}")
    return _checked(content, path)


class _Loader(yaml.SafeLoader):
    """Plain values alone, 1e-3 and 1.5e3 as numbers (as DVC reads them, and YAML since 1.2), and every key once, where
    the YAML library would keep the last.
    """

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"found {key.value!r} twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), "+-.0123456789"
)


def compose(profile: str, conf: str | Path = "conf") -> Params:
    """The parameters of `conf/profile/PROFILE.yaml`, composed by Hydra just as DVC does.

    Raises:
        ParamsError: no such profile, or a key is unknown, missing or mistyped.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folder = Path(conf).resolve()
    path = f"{conf}/profile/{profile}.yaml"
    names = sorted(p.stem for p in (folder / "profile").glob("*.yaml"))
    if profile not in names:
        raise ParamsError(
            f"no profile {profile!r}{near(profile, names)}; profiles in {folder.name}/profile: {', '.join(names)}"
        )
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        try:
            composed = hydra_compose("config", overrides=[f"profile={profile}"])
            content = dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ParamsError(f"{path}: cannot be composed ({error})") from None
    if isinstance(content.get("profile"), dict):
        raise ParamsError(
            f"{path}: expected `# @package _global_` as its first line, without a byte order mark; add it"
        )
    if content.get("profile") != profile:
        raise ParamsError(
            f"{path}: profile is {content.get('profile')!r}, expected {profile!r}, the file's own name, so that no "
            "profile writes into another's results; change one of the two"
        )
    return _checked(content, path)


def write(profile: str, path: str | Path = "params.yaml", conf: str | Path = "conf") -> None:
    """Compose a profile into `path` with DVC's own Hydra support, so that both write the same text.

    Raises:
        ParamsError: as `compose`.
    """
    from dvc.utils.hydra import compose_and_dump

    compose(profile, conf)
    compose_and_dump(str(path), str(Path(conf).resolve()), None, "config", "", [f"profile={profile}"])


def _checked(content: dict, path) -> Params:
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(explain(error, path, Params)) from None
