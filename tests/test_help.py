"""`--help` of every command comes at once: it reads nothing and imports nothing that takes long."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = [*(f"pipelines.{path.stem}" for path in sorted((ROOT / "pipelines").glob("[!_]*.py"))), "report"]
HEAVY = (
    "dvc", "hydra", "matplotlib", "medmnist", "numpy", "pandas", "PIL", "ray", "scipy", "seaborn", "sklearn",
    "statsmodels", "timm", "torch", "torchvision",
)  # fmt: skip


def test_the_commands_are_found():
    assert {"pipelines.prepare", "pipelines.train", "pipelines.summarise", "pipelines.cost"} < set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command, tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({command!r}, run_name='__main__')\n"
        "except SystemExit as end: print('status:', end.code)\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert done.stdout.count(f"python -m {command}") >= 2, "an example beside the usage"
    assert lines[0].startswith(f"usage: python -m {command}") and lines[-2:] == ["status: 0", "loaded: []"]
    assert not list(tmp_path.iterdir())
