"""A clinic's scans in class folders, and two methods trained on them through the command."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import tiny_params

CLASSES = ("CNV", "DME", "NORMAL")


def write_scans(root: Path, first_patient: int, patients: int = 8, classes=CLASSES, seed: int = 0) -> Path:
    """Noisy grey scans of 40 x 48 pixels, two a patient, with a bright stripe where the class has it."""
    rng = np.random.default_rng([seed, first_patient])
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for patient in range(first_patient + patients * number, first_patient + patients * (number + 1)):
            for index in range(2):
                pixels = rng.normal(90, 25, (40, 48))
                pixels[8 + 10 * number : 14 + 10 * number] += 60
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / name / f"{name}-{patient}-{index}.png")
    return root


@pytest.fixture(scope="session")
def clinic(tmp_path_factory):
    """A folder with scans/, params.yaml and trained networks of `full` and `colora`, seeds 0 and 1."""
    from pipelines import prepare, train

    folder, before = tmp_path_factory.mktemp("clinic"), Path.cwd()
    content = tiny_params(
        profile="clinic",
        data={"source": "folder", "image_size": 32, "folder": {"path": "scans", "folds": 4, "val_share": 0.25}},
        method={"full": {"family": "full"}, "colora": {"family": "colora", "blocks": [2, 5]}},
    )
    os.chdir(folder)
    try:
        write_scans(folder / "scans", 0)
        Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        assert prepare.main([]) == 0
        for method in content["method"]:
            assert train.main(["--method", method, "--device", "cpu"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(clinic, monkeypatch):
    monkeypatch.chdir(clinic)
    return clinic
