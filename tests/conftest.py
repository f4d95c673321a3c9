"""Shared by all tests: one thread a process, what takes longest first, and a tiny prepared data set."""

import os
from pathlib import Path

import numpy as np
import pytest

# Read once, when torch is loaded. `make test` has a process a core, and the networks are too small to share.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, before the first product on a GPU

SHARED = Path(__file__).parents[2] / "shared"
SLOW = ("test_kill", "test_pipeline", "test_cluster", "test_launch", "test_cost", "test_browser")


def pytest_collection_modifyitems(items):
    """What takes a minute or more comes first: at the end, one process would work and the other wait."""
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # on a machine that runs tests/test_gpu.py alone
    pass
else:
    # Properties are tried on a few examples, the same at every run; `--hypothesis-profile=long` draws 10,000 new ones.
    _CALM = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("ci", max_examples=40, derandomize=True, **_CALM)
    settings.register_profile("long", max_examples=10_000, print_blob=True, **_CALM)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def write_prepared(folder: Path, images: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray]) -> None:
    """Write arrays as `pipelines.prepare` does."""
    from pipelines.data.preprocessing import Preprocessing
    from pipelines.data.sources import Dataset
    from pipelines.data.writing import Writing

    folded = "train" not in splits
    classes = [f"class{c}" for c in range(int(labels.max()) + 1)]
    preprocessing = Preprocessing(size=images.shape[1], channels=3 if images.ndim == 4 else 1)
    with Writing(folder) as writing:
        stored = writing.allocate(images.shape)
        stored[:] = images
        dataset = Dataset(stored, labels.astype(np.int64), classes, splits, preprocessing, folds=2 if folded else None)
        seeds = sorted({int(name.split("/")[0]) for name in splits}) if folded else None
        writing.finish(dataset, splits, seeds=seeds)


def bright_quadrants(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy grey images whose label is the row and shade of a bright stripe: easy, and not undone by a flip."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.normal(80, 25, (count, size, size))
    for image, label in zip(images, labels):
        row = size // 4 if label % 2 else size // 2
        image[row : row + 4] += 60 if label < 2 else -60
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder of its own as the working directory: the pipeline's paths are relative to it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shelf(tmp_path):
    """A folder whose files a web server on this machine gives out; its `url` ends with a slash."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread
    from types import SimpleNamespace

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    folder = tmp_path / "shelf"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()


@pytest.fixture
def prepared(workdir):
    """data/tiny with 96 training, 32 validation and 32 test images."""
    images, labels = bright_quadrants(160)
    splits = {"train": np.arange(96), "val": np.arange(96, 128), "test": np.arange(128, 160)}
    write_prepared(workdir / "data" / "tiny", images, labels, splits)
    return workdir / "data" / "tiny"


def tiny_params(**changes) -> dict:
    """A profile on `prepared` with one cheap method of each family, random weights, two epochs."""
    content = {
        "profile": "tiny",
        "seeds": [0, 1],
        "data": {"source": "phantom", "image_size": 32, "phantom": {"train": 96, "val": 32, "test": 32}},
        "model": {"backbone": "smallcnn", "weights": "random"},
        "train": {"epochs": 2, "batch_size": 16, "lr": 2e-3, "input": "unit"},
        "probe": None,
        "cost": None,
        "method": {
            "full": {"family": "full"},
            "head-only": {"family": "head_only"},
            "bitfit": {"family": "bitfit"},
            "adapters": {"family": "adapters"},
            "conv-lora-r8": {"family": "conv_lora", "rank": 8, "alpha": 16},
            "colora-blocks2-5": {"family": "colora", "blocks": [2, 5]},
        },
    }
    content.update(changes)
    return content


# A small method of every family, and more where one family stands for several models.
FAMILIES = {
    **{section["family"]: section for section in tiny_params()["method"].values()},
    "lora": {"family": "lora", "backbone": "smallvit", "head": "linear", "rank": 8, "alpha": 16},
    "peft-dora": {"family": "peft", "tuner": "dora", "rank": 8},
    "ssf": {"family": "ssf"},
    "norm_tuning": {"family": "norm_tuning"},
    "conv_adapter": {"family": "conv_adapter"},
    "vit": {"family": "full", "backbone": "smallvit", "head": "linear"},
    "medmnist": {"family": "medmnist", "input_size": 16},
    "kan_head": {"family": "kan_head"},
    "kan_head-full": {"family": "kan_head", "finetune": True},
    "medkan": {"family": "medkan", "widths": [8, 16], "depths": [1, 1]},
    "medmamba": {"family": "medmamba", "widths": [16, 32], "depths": [1, 1]},
    "vim": {"family": "vim", "width": 32, "depth": 2, "patch": 4},
}


def fit(model, data, recipe, *, seed: int = 0, device: str = "cpu", **options):
    """`loop.fit` on prepared data; `recipe` is a `Train` or a mapping of its keys."""
    import torch

    from pipelines.profile import Train
    from pipelines.training import loop
    from pipelines.training.loaders import make_loaders

    recipe, device = Train.model_validate(recipe), torch.device(device)
    return loop.fit(model, make_loaders(model, data, recipe, device), recipe, seed=seed, device=device, **options)
