"""The wheel of `colora`: what is in it, and that it works where torch and safetensors alone are installed."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.path.insert(0, WHEEL)
import colora, torch

model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3, padding=1))
colora.inject(model, colora.ColoraConfig(target_modules=["0", "2"]))
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
images = torch.randn(2, 3, 8, 8)
expected = model(images)
colora.save_adapter(model, FOLDER)
colora.load_adapter(model, FOLDER)
plain = colora.merge_and_unload(model)
torch.testing.assert_close(plain(images), expected)
print(colora.__file__, sorted(BLOCKED & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by setuptools from a copy of what it needs, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "colora", source / "colora", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as b; print(b.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return source / "dist" / done.stdout.split()[-1]


def required(*names):
    """The installed distributions that these need, themselves too, in small letters and with dashes."""
    found, open_names = set(), list(names)
    while open_names:
        name = re.sub(r"[-_.]+", "-", open_names.pop()).lower()
        try:
            needs = metadata.requires(name) or [] if name not in found else []
        except metadata.PackageNotFoundError:  # for another system
            continue
        found.add(name)
        open_names += [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
    return found


def test_the_wheel_holds_the_library_its_types_and_two_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(about).decode().splitlines()
    assert names == {f"colora/{path.name}" for path in (ROOT / "colora").glob("*.py")} | {"colora/py.typed"}
    needs = [
        line.split(":")[1].strip() for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(re.match(r"[\w-]+", need)[0] for need in needs) == ["safetensors", "torch"]


def test_the_wheel_works_with_torch_and_safetensors_alone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    there = required("torch", "safetensors", "numpy")
    blocked = {
        package
        for package, owners in metadata.packages_distributions().items()
        if not there & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    }
    assert {"pandas", "timm", "peft", "pydantic", "torchvision"} <= blocked and not {"torch", "numpy"} & blocked
    code = f"BLOCKED = {blocked - {'colora'}}\nWHEEL = {str(tmp_path / 'installed')!r}\nFOLDER = 'adapter'\n{USE}"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(tmp_path / "installed/colora/__init__.py") and done.stdout.endswith("[]\n")
