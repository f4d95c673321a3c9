"""A family more is one file in baselines/ and one section in a profile: it trains, is counted, grouped and coloured."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import bright_quadrants, tiny_params, write_prepared

ROOT = Path(__file__).parents[1]
ADAPTING = '''"""Only the last block trains."""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="last block", colours={"CNN": "#123456"})


def adapt(model: Classifier, *, blocks: tuple[int, int] = (5, 5)) -> Classifier:
    model.freeze_backbone()
    for name in model.block_modules(blocks):
        model.get_submodule(name).requires_grad_(True)
    return model
'''
OF_ITS_OWN = '''"""A network of its own."""

from torch import nn

from baselines import Family

FAMILY = Family(label="Tiny", group="tiny networks", colours="#654321")


class Tiny(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3, stride=4), nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))

    def last_map(self):
        return self.conv, lambda x: x


def network(*, num_classes: int, image_size: int, width: int = 8) -> Tiny:
    return Tiny(num_classes, width)
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code with two families more, and a profile that has a method of each."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("baselines", "colora", "pipelines", "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "assets", "*.md"))
    (folder / "baselines" / "lastblock.py").write_text(ADAPTING)
    (folder / "baselines" / "tiny.py").write_text(OF_ITS_OWN)
    methods = {"last-block": {"family": "lastblock"}, "tiny": {"family": "tiny", "width": 12}}
    content = tiny_params(method=methods, seeds=[0], probe={"images": 8})
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    images, labels = bright_quadrants(160)
    splits = {"train": np.arange(96), "val": np.arange(96, 128), "test": np.arange(128, 160)}
    write_prepared(folder / "data" / "tiny", images, labels, splits)
    return folder


def python(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_counted(copy):
    lines = python(copy, "-m", "pipelines.parameters").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["last-block", "smallcnn"], ["tiny", "tiny"]]
    trained = 3 * 9 * 12 + 12 + 12 * 4 + 4
    assert lines[2].split()[2:4] == [f"{trained:,}"] * 2


def test_they_train_and_are_probed(copy):
    """By one process, which takes seconds to start."""
    code = (
        "from pipelines import train; [train.main(['--method', m, '--device', 'cpu']) for m in ('last-block', 'tiny')]"
    )
    out = python(copy, "-c", code)
    for method in ("last-block", "tiny"):
        assert f"{method} seed 0: accuracy" in out
        folder = copy / "results" / "tiny" / "runs" / method / "0"
        assert {"record.json", "predictions.npz", "gradcam.npz"} <= {path.name for path in folder.iterdir()}


def test_it_is_grouped_and_coloured(copy):
    code = """
from report.drawing import looks
for family, backbone in (("lastblock", "smallcnn"), ("tiny", "tiny")):
    found = looks(family, backbone)
    print(found.group, found.kind, found.color, sep=", ")
"""
    assert python(copy, "-c", code).splitlines() == ["CNN, last block, #123456", "tiny networks, Tiny, #654321"]


def test_an_edited_colour_makes_no_run_stale_and_an_edited_layer_does(copy):
    code = "from pipelines.runs.code import hashes; print(hashes()['code']['tiny'])"
    path = copy / "baselines" / "tiny.py"
    before = python(copy, "-c", code)
    path.write_text(OF_ITS_OWN.replace("#654321", "#AAAAAA"))
    assert python(copy, "-c", code) == before
    path.write_text(OF_ITS_OWN.replace("stride=4", "stride=2"))
    assert python(copy, "-c", code) != before
    path.write_text(OF_ITS_OWN)


def test_its_options_are_in_the_schema(copy):
    code = "from pipelines.profile import describing; print(describing.text('method.NAME.width'))"
    assert "method.NAME.width: int, default 8\n    Family tiny." in python(copy, "-c", code)
