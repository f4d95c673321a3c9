"""What a probed run leaves, that all methods see the same noise, and when a run must be probed again."""

import numpy as np
import pytest
import torch

import baselines
from pipelines.data.images import open_prepared
from pipelines.files import hashing
from pipelines.profile import Params, Train
from pipelines.runs import code
from pipelines.training import loop, probe, runner
from pipelines.training.corruptions import KINDS, corrupt
from pipelines.training.loaders import batches_of
from tests.conftest import tiny_params

CPU = torch.device("cpu")


def set_up(prepared, method="head-only", **recipe):
    params = Params(**tiny_params())
    settings = params.settings(method)
    torch.manual_seed(1)
    model = baselines.build(method, settings, num_classes=4, image_size=32).eval()
    return model, open_prepared(prepared, 0, CPU), Train.model_validate({**settings["train"], **recipe})


def files(folder):
    found = {}
    for name in ("corruptions", "gradcam"):
        with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
            found[name] = dict(archive)
    return found["corruptions"], found["gradcam"]


def test_the_files(prepared, tmp_path):
    model, data, recipe = set_up(prepared)
    probe.run(model, data, recipe, CPU, tmp_path, images=None)
    corruptions, gradcam = files(tmp_path)
    assert {name: array.shape for name, array in corruptions.items()} == {
        "indices": (32,), "labels": (32,), "clean": (32,), "predicted": (6, 5, 32), "kinds": (6,),
    }  # fmt: skip
    assert corruptions["kinds"].tolist() == list(KINDS)
    assert np.array_equal(corruptions["indices"], data.splits["test"])
    assert np.array_equal(corruptions["labels"], data.labels[data.splits["test"]])
    assert corruptions["clean"].dtype == corruptions["predicted"].dtype == np.uint8
    seen = loop.evaluate(model, batches_of(data, "test", recipe, CPU), recipe, CPU)
    assert np.array_equal(corruptions["clean"], seen.probabilities.argmax(1))
    assert np.array_equal(gradcam["indices"], data.splits["test"])
    assert gradcam["maps"].shape == (32, 2, 2) and gradcam["maps"].dtype == np.uint8
    assert set(gradcam["maps"].max((1, 2)).tolist()) <= {0, 255}


class Named(torch.nn.Module):
    """Logits that hang on every pixel, so that any corruption may change the class; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.layer4, self.shown = torch.nn.Identity(), []
        self.weight = torch.randn(3 * 32 * 32, 4, generator=torch.Generator().manual_seed(5))

    def forward(self, x):
        self.shown.append(x.clone())
        return self.layer4(x).flatten(1) @ self.weight

    def last_map(self):
        return self.layer4, lambda output: output


def test_every_kind_and_severity_in_its_place(prepared, tmp_path):
    """Against images corrupted here one by one: the noise depends on kind, severity and place in the test alone."""
    _, data, recipe = set_up(prepared)
    probe.run(Named(), data, recipe, CPU, tmp_path, images=None)
    predicted = files(tmp_path)[0]["predicted"]
    images = data.images[data.splits["test"]][:, None].float() / 255
    found = set()
    for place, kind in enumerate(KINDS):
        for severity in range(1, 6):
            generator = torch.Generator().manual_seed(1000 * place + severity)
            changed = torch.cat([corrupt(image[None], kind, severity, generator) for image in images])
            logits = changed.repeat(1, 3, 1, 1).double().flatten(1) @ Named().weight.double()
            first, second = logits.topk(2).values.T
            clear = first - second > 1e-3
            assert clear.sum() > 25
            assert np.array_equal(predicted[place, severity - 1][clear], logits.argmax(1)[clear])
            found.add(tuple(predicted[place, severity - 1]))
    assert len(found) > 20, "the toy network tells conditions apart"


def test_the_same_noise_for_every_method_seed_and_batch_size(prepared, tmp_path):
    def shown(seed, size):
        torch.manual_seed(seed)
        model, (_, data, recipe) = Named(), set_up(prepared)
        probe.run(model, data, recipe.model_copy(update={"eval_batch_size": size}), CPU, tmp_path, images=20)
        return torch.cat(model.shown)

    first = shown(0, 7)
    assert len(first) == (1 + 30 + 1) * 20  # clean, corrupted, and for Grad-CAM
    for other in (shown(1, 7), shown(2, 20)):
        torch.testing.assert_close(first, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 5, 10, 31])
def test_a_subset_is_spread_evenly(prepared, tmp_path, count):
    _, data, recipe = set_up(prepared)
    probe.run(Named(), data, recipe, CPU, tmp_path, images=count)
    corruptions, gradcam = files(tmp_path)
    indices, test = corruptions["indices"], data.splits["test"]
    assert len(indices) == count == len(gradcam["maps"]) and np.isin(indices, test).all()
    assert np.array_equal(gradcam["indices"], indices)
    steps = np.diff(np.searchsorted(test, indices))
    assert indices[0] == test[0] and (count == 1 or indices[-1] == test[-1])
    assert (steps > 0).all() and (count == 1 or np.ptp(steps) <= 1)


@pytest.mark.parametrize("count", [32, 500, None])
def test_no_more_than_there_are(prepared, tmp_path, count):
    _, data, recipe = set_up(prepared)
    probe.run(Named(), data, recipe, CPU, tmp_path, images=count)
    assert np.array_equal(files(tmp_path)[0]["indices"], data.splits["test"])


def test_what_a_run_s_fingerprint_covers(prepared, monkeypatch):
    def identity(seed=0, **section):
        params = Params(**tiny_params(**section))
        return runner.identity(params, "head-only", params.settings("head-only"), seed)

    plain = identity()
    everything, few = identity(probe={}), identity(probe={"images": 8})
    assert len({plain, everything, few}) == 3
    assert identity(probe={"images": 8, "seeds": [0]}) == few, "which other seeds are probed changes no run"
    assert identity(1, probe={"seeds": [0]}) == identity(1), "a seed that is not probed"
    before = hashing.code_hash(code.probe_files())
    monkeypatch.setattr(runner, "probe_files", lambda: [*code.probe_files(), code.ROOT / "pipelines/tune.py"])
    assert identity(probe={}) != everything and identity() == plain
    assert hashing.code_hash(code.probe_files()) == before
    assert {path.name for path in code.probe_files()} == {"probe.py", "corruptions.py", "gradcam.py"}


def test_a_trained_run_is_probed_and_complete_only_with_both_files(prepared, workdir):
    content = tiny_params(probe={"images": 12, "seeds": [0]})
    content["train"]["epochs"] = 1
    params = Params(**content)
    assert runner.run_method(params, "head-only", [0, 1]) == 0
    folder = params.run_dir("head-only", 0)
    with np.load(folder / "predictions.npz") as test:
        named = dict(zip(test["indices"].tolist(), test["probabilities"].argmax(1)))
    corruptions, gradcam = files(folder)
    assert len(gradcam["maps"]) == 12
    assert corruptions["clean"].tolist() == [named[index] for index in corruptions["indices"].tolist()]
    assert not (params.run_dir("head-only", 1) / "gradcam.npz").exists()
    fingerprint = runner.identity(params, "head-only", params.settings("head-only"), 0)
    for name in runner.PROBE_FILES:
        assert runner.is_complete(params, "head-only", 0, fingerprint)
        (folder / name).rename(folder / "away")
        assert not runner.is_complete(params, "head-only", 0, fingerprint)
        (folder / "away").rename(folder / name)
    assert runner.is_complete(
        params, "head-only", 1, runner.identity(params, "head-only", params.settings("head-only"), 1)
    )
