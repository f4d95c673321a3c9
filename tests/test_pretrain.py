"""Pretraining of the small backbones: weights that a network loads, the same whatever the number of threads."""

import pytest
import torch
from safetensors.torch import load_file

from baselines.backbones import classifier
from pipelines.profile import Params
from pipelines.training import pretraining
from tests.conftest import tiny_params

RECIPE = {
    "backbones": ["smallcnn"],
    "phantom": {"train": 96, "val": 32, "test": 4, "seed": 1, "domain": "source"},
    "epochs": 2,
    "lr": 2e-3,
    "batch_size": 32,
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Pretrains in a folder of its own on so many threads; returns the file."""

    def run(threads, recipe=RECIPE):
        monkeypatch.chdir(tmp_path)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            params = Params(**tiny_params(pretrain=recipe))
            pretraining.pretrain(params)
            assert torch.get_num_threads() == threads  # the caller's
        finally:
            torch.set_num_threads(before)
        return tmp_path / "weights" / params.profile / "smallcnn.safetensors"

    return run


def test_the_number_of_threads_changes_no_byte(weights):
    one = weights(1).read_bytes()
    assert weights(2).read_bytes() == one


def test_a_network_starts_from_what_was_trained(weights):
    file = weights(1)
    network = classifier(backbone="smallcnn", weights=str(file), num_classes=4, image_size=32)
    trained = load_file(file)
    backbone = {key: value for key, value in network.backbone.state_dict().items() if key in trained}
    assert backbone.keys() == trained.keys()
    assert all(torch.equal(backbone[key], trained[key]) for key in trained)
    untrained = classifier(backbone="smallcnn", weights="random", num_classes=4, image_size=32).backbone.state_dict()
    assert any(not torch.equal(untrained[key], trained[key]) for key in trained if key.endswith("running_mean"))


def test_without_a_section_there_is_an_empty_folder(weights):
    file = weights(1, recipe=None)
    assert file.parent.is_dir() and not list(file.parent.iterdir())
