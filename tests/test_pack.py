import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipelines import pack
from pipelines.files.errors import UserError
from pipelines.launching import packing
from pipelines.profile import Params, load
from pipelines.runs import environment
from pipelines.runs.code import ROOT
from pipelines.runs.record import is_complete
from tests.conftest import tiny_params


@pytest.fixture
def committed(monkeypatch):
    """What pack takes for the last commit: the code as it is, so that the test is about this code."""

    def code():
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", *packing.CODE],
            capture_output=True, text=True,
        )  # fmt: skip
        if listed.returncode:
            pytest.skip("not a git checkout")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in listed.stdout.split():
                if (ROOT / name).is_file():
                    tar.add(ROOT / name, name)
        return buffer.getvalue()

    monkeypatch.setattr(packing, "_commit", lambda: "ab" * 20)
    monkeypatch.setattr(packing, "_code", code)


def profile(folder, **changes):
    import baselines

    model = baselines.build(
        "a", {"family": "full", "backbone": "smallcnn", "weights": "random"}, num_classes=4, image_size=32
    )
    weights = folder / "elsewhere" / "small.safetensors"
    weights.parent.mkdir()
    save_file(
        {k.removeprefix("backbone."): v for k, v in model.state_dict().items() if k.startswith("backbone.")}, weights
    )
    content = tiny_params(
        seeds=[0],
        method={"head-only": {"family": "head_only"}},
        model={"backbone": "smallcnn", "weights": str(weights)},
        **changes,
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return Params(**content)


def test_what_is_unpacked_trains_without_git_and_its_run_is_complete_here(prepared, workdir, committed):
    params = profile(workdir)
    assert pack.main(["tiny.tar.xz"]) == 0
    there = workdir / "there"
    with tarfile.open("tiny.tar.xz") as tar:
        tar.extractall(there, filter="data")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.train", "--method", "head-only", "--device", "cpu"],
        cwd=there / "tiny", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = there / "tiny" / params.run_dir("head-only", 0)
    from pipelines.training import runner

    fingerprint = runner.identity(params, "head-only", params.settings("head-only"), 0)
    assert is_complete(folder, fingerprint)
    assert load(there / "tiny" / "params.yaml").model["weights"] == "weights/packed/small.safetensors"
    assert json.loads((folder / "record.json").read_text())["environment"]["commit"] == "ab" * 20


def test_the_archive_names_its_commit(tmp_path):
    """git writes the commit into .git_archival.txt, and records read it where there is no git."""
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse"], capture_output=True).returncode:
        pytest.skip("not a git checkout")
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD", ".git_archival.txt"], capture_output=True)
    if archive.returncode:
        pytest.skip(f"not committed yet: {archive.stderr.decode()}")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert f"node: {head}".encode() in archive.stdout


def test_the_commit_of_an_archive_is_read_and_that_of_a_template_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.commit() is None
    (tmp_path / ".git_archival.txt").write_text("node: $Format:%H$\n")
    assert environment.commit() is None
    (tmp_path / ".git_archival.txt").write_text(f"node: {'a1' * 20}\n")
    assert environment.commit() == "a1" * 20


def test_results_so_far_go_along_and_those_of_other_profiles_do_not(prepared, workdir, committed):
    params = profile(workdir)
    kept = params.run_dir("head-only", 0) / "record.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"status": "failed"}))
    for path in (
        Path("results/other/x.csv"),
        Path("checkpoints/tiny/cost/1f.json"),
        Path("checkpoints/other/cost/2.json"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert pack.main(["tiny.tar"]) == 0
    with tarfile.open("tiny.tar") as tar:
        names = tar.getnames()
    assert {"tiny/results/tiny/runs/head-only/0/record.json", "tiny/checkpoints/tiny/cost/1f.json"} <= set(names)
    assert not any("other" in name for name in names)


def test_what_cannot_be_packed_is_said_and_an_earlier_archive_stays(prepared, workdir, committed, capsys):
    profile(workdir)
    Path("tiny.tar").write_bytes(b"earlier")
    (workdir / "elsewhere" / "small.safetensors").unlink()
    assert pack.main(["tiny.tar"]) == 1
    assert "small.safetensors': no such file" in capsys.readouterr().err
    assert Path("tiny.tar").read_bytes() == b"earlier"


def test_two_weights_of_one_name_are_refused(prepared, workdir, committed, capsys):
    profile(workdir)
    other = workdir / "small.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["method"]["full"] = {"family": "full", "weights": str(other)}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert pack.main(["tiny.tar"]) == 1
    assert "have one name" in capsys.readouterr().err


def test_uncommitted_code_is_refused(tmp_path, monkeypatch):
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(packing, "ROOT", tmp_path)
    for name in ("conf/profile/mine.yaml", "report/mine/index.html"):  # a profile, and the report made of it
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="not committed.*\n.*conf/profile/mine.yaml$"):
        packing._commit()
    subprocess.run(["git", "-C", str(tmp_path), "add", "conf"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "y"],
                   check=True)  # fmt: skip
    assert len(packing._commit()) == 40
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "new.py").write_text("")
    with pytest.raises(UserError, match="code that is not committed.*\n.*pipelines/"):
        packing._commit()
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    with pytest.raises(UserError, match="code that is not committed.*\n.*pipelines/new.py"):
        packing._commit()


def test_all_code_goes_along_but_results_and_reports_made_of_them():
    """Of what is committed the archive has everything else: the ledger's tables, the page's script and styles."""
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse"], capture_output=True).returncode:
        pytest.skip("not a git checkout")
    with tarfile.open(fileobj=io.BytesIO(packing._code())) as tar:
        packed = {member.name for member in tar if member.isfile()}
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-tree", "-r", "--name-only", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    left = {name for name in listed if name not in packed}
    assert left and all(name.startswith(("results/", "report/oct1k", "report/quick/", "report/paper")) for name in left)
    assert {name for name in listed if name.endswith(("/paper.csv", ".js", ".css", ".py"))} <= packed


def test_packed_without_code_it_is_restored_bit_for_bit_where_the_code_is(prepared, workdir, committed, monkeypatch):
    params = profile(workdir)
    assert pack.main(["data.tar.xz", "--without-code"]) == 0
    before = {path: path.read_bytes() for path in prepared.iterdir()}
    weights = (workdir / "elsewhere/small.safetensors").read_bytes()
    there = workdir / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    with tarfile.open(workdir / "data.tar.xz") as tar:
        tar.extractall(filter="data")
    assert {workdir / "data/tiny" / path.name: path.read_bytes() for path in Path("data/tiny").iterdir()} == before
    assert Path("weights/packed/small.safetensors").read_bytes() == weights
    assert Path(".git_archival.txt").read_text() == f"node: {'ab' * 20}\n"
    assert load("params.yaml").seeds == params.seeds and not Path("pipelines").exists()
