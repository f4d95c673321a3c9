"""What is found out before anything trains."""

import pytest
import torch
from safetensors.torch import save_file

from baselines.backbones import classifier
from pipelines.profile import Params, ParamsError
from pipelines.training import checking
from tests.conftest import tiny_params


def profile(**changes):
    return Params(**tiny_params(**changes))


def test_every_method_that_cannot_be_built_is_named_at_once():
    methods = {
        "good": {"family": "full"},
        "turned": {"family": "colora", "blocks": [5, 2]},
        "elsewhere": {"family": "full", "backbone": "resnet19"},
        "word": {"family": "conv_lora", "rank": "8", "alpha": 16},
        "none": {"family": "conv_lora", "rank": 0, "alpha": 16},
    }
    with pytest.raises(ParamsError) as error:
        checking.check(profile(method=methods))
    told = str(error.value)
    for words in ("'turned': blocks: found [5, 2]", "resnet19", "rank: found '8', expected int", "rank: found 0"):
        assert words in told
    assert "'good'" not in told and "tiny" in told
    checking.check(profile(method=methods), ["good"])


def test_weights_of_another_network_are_found_without_training(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "small.safetensors"
    network = classifier(backbone="smallcnn", weights="random", num_classes=4, image_size=32)
    save_file(network.backbone.state_dict(), weights)
    model = {"backbone": "smallcnn", "weights": str(weights)}
    checking.check(profile(model=model))
    with pytest.raises(ParamsError, match="'full'.*are not those of vgg16"):
        checking.check(profile(model={**model, "backbone": "vgg16"}, method={"full": {"family": "full"}}))


def test_a_network_that_grad_cam_does_not_know_is_refused_where_runs_are_probed(monkeypatch):
    from baselines.vim import Vim

    method = {"vim": {"family": "vim", "width": 32, "depth": 2, "patch": 4}}
    monkeypatch.delattr(Vim, "last_map")
    checking.check(profile(method=method))
    with pytest.raises(ParamsError, match="'vim'.*no method last_map"):
        checking.check(profile(method=method, probe={}))


@pytest.mark.parametrize(
    "cpuinfo, there",
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx2 amx_bf16\n", True),
        ("Features\t: asimd bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("processor: 0\n", True),  # it does not say
        (None, True),
    ],
)
def test_the_processor_says_whether_it_has_the_instructions(tmp_path, cpuinfo, there):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert checking.has_bfloat16(path) is there


def test_a_slow_precision_is_warned_of_with_its_key(monkeypatch, capsys):
    monkeypatch.setattr(checking, "has_bfloat16", lambda: False)
    train = {**tiny_params()["train"], "precision": "bfloat16"}
    checking.warn_of_slow_precision(profile(train=train), device="cpu")
    assert "warning: train.precision is bfloat16" in capsys.readouterr().err
    one = {"full": {"family": "full"}, "odd": {"family": "full", "train": {"precision": "bfloat16"}}}
    checking.warn_of_slow_precision(profile(method=one), device="cpu")
    assert "10 to 40 times as long; set method.odd.train.precision: float32" in capsys.readouterr().err
    checking.warn_of_slow_precision(profile(train=train), device="cuda")
    checking.warn_of_slow_precision(profile(), device="cpu")
    assert capsys.readouterr().err == ""


def test_pieces_of_a_batch_are_refused_where_batchnorm_statistics_move():
    pieces = {"train": {"micro_batch": 4}}
    methods = {"moves": {"family": "full", **pieces}, "frozen": {"family": "head_only", **pieces}}
    with pytest.raises(
        ParamsError, match="'moves': train.micro_batch is 4, but it updates BatchNorm statistics"
    ) as told:
        checking.check(profile(method=methods))
    assert "frozen" not in str(told.value)
