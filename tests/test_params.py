import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.params import main
from pipelines.profile import Params, ParamsError, compose, describing, load, write
from tests.conftest import tiny_params


@pytest.mark.parametrize("profile", ["quick", "oct1k", "paper", "paper-tuned", "paper-distilled"])
def test_every_profile_composes_and_its_methods_resolve(profile):
    params = compose(profile)
    assert params.profile == profile
    for method in params.method:
        assert params.settings(method)["train"]["epochs"] > 0


def test_committed_params_are_the_composed_quick_profile(tmp_path, capsys):
    write("quick", tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml") == compose("quick")
    assert main(["quik"]) == 1 and "did you mean 'quick'" in capsys.readouterr().err
    if load("params.yaml").profile != "quick":
        pytest.skip("another profile is active")
    assert (tmp_path / "params.yaml").read_text() == Path("params.yaml").read_text()


def test_distilled_profile_differs_from_paper_in_its_data_only():
    paper, distilled = compose("paper"), compose("paper-distilled")
    assert distilled.data.mode == "distilled" and paper.data.mode == "balanced"
    assert distilled.model_copy(update={"profile": "paper", "data": paper.data}) == paper


def test_settings_are_the_methods_difference_over_the_defaults():
    content = tiny_params(method={"full": {"family": "full", "backbone": "vgg16", "train": {"lr": 0.5}}})
    settings = Params(**content).settings("full")
    assert settings["backbone"] == "vgg16" and settings["weights"] == "random"
    assert settings["train"]["lr"] == 0.5 and settings["train"]["epochs"] == 2


def test_weights_may_be_one_a_backbone():
    model = {"backbone": "smallcnn", "weights": {"smallcnn": "a.safetensors", "smallvit": "random"}}
    methods = {
        "cnn": {"family": "full"},
        "vit": {"family": "full", "backbone": "smallvit"},
        "own": {"family": "full", "weights": "imagenet"},
        "other": {"family": "full", "backbone": "vgg16"},
    }
    params = Params(**tiny_params(model=model, method=methods))
    assert [params.settings(method)["weights"] for method in ("cnn", "vit", "own")] == [
        "a.safetensors",
        "random",
        "imagenet",
    ]
    with pytest.raises(
        ParamsError, match="method.other: model.weights has none for backbone 'vgg16', only for 'smallcnn'"
    ):
        params.settings("other")


def test_a_family_with_a_network_of_its_own_takes_nothing_from_the_profiles_model():
    model = {"backbone": "smallcnn", "weights": "a.safetensors", "head": "linear", "batchnorm": "updated"}
    settings = Params(**tiny_params(model=model, method={"own": {"family": "vim", "patch": 8}})).settings("own")
    assert {key: settings.get(key) for key in (*model, "patch")} == {
        "backbone": "vim", "weights": "random", "head": None, "batchnorm": None, "patch": 8,
    }  # fmt: skip


def test_the_profile_says_which_methods_are_tuned():
    methods = {"full": {"family": "full"}, "stated": {"family": "full", "train": {"lr": 1e-3}}}
    tuned = Params(**tiny_params(method=methods, tune={"lrs": [1e-3], "epochs": 1}))
    assert tuned.tuned("full") and not tuned.tuned("stated")
    assert not Params(**tiny_params(method=methods)).tuned("full")
    assert compose("paper").tune is None and compose("paper-tuned").tune is not None


def test_seed_zero_is_a_seed():
    assert Params(**tiny_params(seeds=[0])).seeds == [0]


def write_changed(folder, change):
    content = tiny_params()
    change(content)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["train"].update(epocs=3), ["train.epocs", "'epochs'"]),
        (lambda c: c["data"]["phantom"].update(tran=3), ["data.phantom.tran", "'train'"]),
        (lambda c: c["train"].update(epochs="many"), ["train.epochs", "'many'", "integer"]),
        (lambda c: c["train"].update(lr=-1.0), ["train.lr", "greater than 0", "-1.0"]),
        (lambda c: c["train"].update(loss="hinge"), ["train.loss", "cross-entropy", "'hinge'"]),
        (lambda c: c.pop("seeds"), ["missing key 'seeds'"]),
        (lambda c: c["data"].pop("image_size"), ["missing key 'data.image_size' (Height and width in pixels)"]),
        (lambda c: c.update(seeds=[]), ["seeds", "at least 1"]),
        (
            lambda c: c["data"].update(folder={"path": "scans", "val_share": 0.8}),
            ["data.folder.val_share", "less than or equal to 0.5", "0.8"],
        ),
        (lambda c: c.update(seeds=[0, 0]), ["seeds: each counts once", "[0, 0]"]),
        (lambda c: c.update(seeds=[-1]), ["seeds.0", "greater than or equal to 0"]),
        (
            lambda c: c.update(tune={"lrs": [1e-3], "epochs": 1, "seeds": [0, 9]}),
            ["tune.seeds", "[0, 1]", "found [0, 9]"],
        ),
        (lambda c: c.update(tune={"lrs": [1e-3], "epochs": 1, "seeds": [1, 1]}), ["tune.seeds", "found [1, 1]"]),
        (lambda c: c.update(tune={"lrs": [1e-3, 1e-4, 1e-3], "epochs": 1}), ["tune.lrs", "each counts once"]),
        (lambda c: c["data"].update(source="folder"), ["data.folder"]),
        (lambda c: c["data"].update(mode="balanced"), ["data.balanced"]),
        (lambda c: c.update(profile="../up"), ["profile", "../up"]),
    ],
)
def test_a_wrong_key_is_named_with_the_file(tmp_path, change, words):
    path = write_changed(tmp_path, change)
    with pytest.raises(ParamsError) as error:
        load(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_wrong_key_in_an_methods_recipe_is_named(tmp_path):
    path = write_changed(tmp_path, lambda c: c["method"]["full"].update(train={"lr": "fast"}))
    with pytest.raises(ParamsError, match=r"method\.full\.train\.lr.*'fast'"):
        load(path).settings("full")


@pytest.mark.parametrize("text", ["1e-3", "0.001", "+1E-3", "1.0e-03", "0.00001e2", ".01E-1", "0.0000001E4"])
def test_a_number_may_be_written_with_an_exponent_alone(tmp_path, text):
    path = write_changed(tmp_path, lambda c: c["train"].update(lr=0.12345))
    path.write_text(path.read_text().replace("0.12345", text))
    assert load(path).train.lr == 0.001
    path.write_text(path.read_text().replace(text, f"'{text}'"))
    with pytest.raises(ParamsError, match=rf"train.lr: .*valid number, found '{re.escape(text)}'"):
        load(path)


def test_the_initials_of_a_long_name_are_understood(tmp_path):
    path = write_changed(tmp_path, lambda c: c["train"].update(learning_rate=1e-3))
    with pytest.raises(ParamsError, match="unknown key 'train.learning_rate' .did you mean 'lr'"):
        load(path)


@pytest.mark.parametrize("name", ["a.b", "a b", "-a", "../up"])
def test_a_method_that_dvc_cannot_address_is_refused(name):
    with pytest.raises(ValueError, match="method"):
        Params(**tiny_params(method={name: {"family": "full"}}))


def conf_with(folder, **profiles):
    shutil.copytree("conf", folder / "conf")
    for name, change in profiles.items():
        content = yaml.safe_load(Path("conf/profile/quick.yaml").read_text())
        content = {"profile": name, **{k: v for k, v in content.items() if k != "profile"}}
        change(content)
        text = "# @package _global_\n" + yaml.safe_dump(content)
        (folder / "conf" / "profile" / f"{name}.yaml").write_text(text)
    return folder / "conf"


def test_a_copied_profile_must_take_the_name_of_its_file(tmp_path):
    conf = conf_with(tmp_path, mine=lambda c: c.update(profile="quick"), own=lambda c: c["train"].pop("input"))
    with pytest.raises(ParamsError, match="mine.yaml: profile is 'quick', expected 'mine'"):
        compose("mine", conf)
    write("own", tmp_path / "params.yaml", conf)
    content = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert content["train"]["input"] == "imagenet" and content["data"]["fit"] == "crop"  # the schema's, written out


def test_a_profile_that_hydra_puts_into_a_section_says_what_its_first_line_should_be(tmp_path):
    conf = conf_with(tmp_path, mine=lambda c: c.update(profile="mine"))
    path = conf / "profile" / "mine.yaml"
    text = path.read_text()
    path.write_text(text.removeprefix("# @package _global_\n"))
    with pytest.raises(ParamsError, match="expected `# @package _global_` as its first line"):
        compose("mine", conf)
    path.write_bytes(text.encode() + "# für\n".encode("latin-1"))
    with pytest.raises(ParamsError, match="mine.yaml: cannot be composed"):
        compose("mine", conf)


def test_a_value_may_be_written_once_and_named_twice(tmp_path):
    path = write_changed(tmp_path, lambda c: None)
    path.write_text(
        path.read_text()
        .replace("seeds:\n- 0\n- 1\n", "seeds: &seeds [0, 1]\nprobe: {seeds: *seeds}\n")
        .replace("probe: null\n", "")
    )
    assert load(path).probe.seeds == load(path).seeds == [0, 1]


def test_dvc_composes_no_profile_that_was_not_named(tmp_path):
    """As `dvc exp run -S train.epochs=3` does it: the active profile must not be overwritten by another."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    target, conf = tmp_path / "params.yaml", str(Path("conf").resolve())
    target.write_text("profile: oct1k\n")
    with pytest.raises(HydraException, match="(?s)specify 'profile'.*quick"):
        compose_and_dump(str(target), conf, None, "config", "", ["train.epochs=3"])
    assert target.read_text() == "profile: oct1k\n"
    compose_and_dump(str(target), conf, None, "config", "", ["profile=quick", "train.patience=3"])
    assert load(target).train.patience == 3 and load(target).profile == "quick"


def test_documented_keys_and_defaults_are_those_of_the_schema(capsys):
    """After a change of the schema: `python -m pipelines.params --update`."""
    assert Path("docs/parameters.md").read_text() == describing.markdown()
    assert Path("conf/defaults.yaml").read_text() == describing.defaults()
    assert main(["--schema", "train.lr"]) == 0
    assert capsys.readouterr().out.startswith("train.lr: number > 0 (needed)\n    The learning rate")
    assert main(["--schema", "train.rate"]) == 1
    assert "no key 'train.rate' (did you mean" in capsys.readouterr().err


def test_an_empty_name_is_no_profile(capsys):
    assert main([""]) == 1
    assert "no profile ''" in capsys.readouterr().err


def test_a_reader_that_has_ended_is_one_line_and_no_traceback():
    """As `head`, which closes the pipe; a buffer of any size may still hold what was printed."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "pipelines.params", "--schema", "train"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    told = "error: Broken pipe: what reads the output, such as `head`, has ended\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_every_key_says_what_it_means():
    assert [key.key for key in describing.schema_keys() if not key.meaning] == []


@pytest.mark.parametrize(
    "section, words",
    [
        ({}, "method.odd.family: found None.*expected one of .*colora"),
        ({"family": "colra"}, "method.odd.family: found 'colra'.*'colora'"),
        ({"family": "full", "weights": 3}, "method.odd: weights is 3"),
        ({"family": "full", "weights": None}, "method.odd: weights is None"),
        ({"family": "full", "train": None}, "method.odd.train: found None, expected a mapping"),
        ({"family": "vim", "backbone": "resnet18"}, "method.odd.backbone: family 'vim' has a network of its own"),
        ({"family": "vim", "batchnorm": "updated"}, "method.odd.batchnorm: family 'vim' has a network of its own"),
    ],
)
def test_an_methods_section_of_the_wrong_form_is_named(section, words):
    with pytest.raises(ParamsError, match=words):
        Params(**tiny_params(method={"odd": section})).settings("odd")


def test_a_profile_without_a_backbone_says_so():
    with pytest.raises(ParamsError, match="method.full: no backbone; set model.backbone"):
        Params(**tiny_params(model={})).settings("full")


def test_an_unknown_method_or_profile_lists_near_names():
    with pytest.raises(ParamsError, match="did you mean 'head-only'"):
        Params(**tiny_params()).settings("head-onl")
    with pytest.raises(ParamsError, match="did you mean 'quick'"):
        compose("quik")


def test_a_file_that_is_no_mapping_or_missing_says_so(tmp_path):
    with pytest.raises(ParamsError, match="no such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ParamsError, match="expected a mapping"):
        load(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load(tmp_path / "bad.yaml")
