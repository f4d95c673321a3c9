"""A campaign end to end on the CPU, stopped and gone on with."""

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from pipelines import campaign as command
from pipelines import launch, prepare
from pipelines.files.errors import UserError
from pipelines.files.locks import locked
from pipelines.launching import campaign, launcher
from pipelines.launching.grid import Wave
from pipelines.profile import Params, ParamsError
from pipelines.runs.code import ROOT
from tests.conftest import tiny_params
from tests.test_launch import environment, processes_in, wait_for


@pytest.fixture
def plan(prepared, workdir):
    """Two profiles of phantom images at 32 px, and a plan of three waves over them."""
    methods = {"full": {"family": "full"}, "head-only": {"family": "head_only"}}
    first = tiny_params(method=methods, tune={"lrs": [1e-3, 3e-3], "epochs": 1})
    second = tiny_params(profile="phantom", method={"head-only": {"family": "head_only"}}, seeds=[0])
    for name, content in (("params.yaml", first), ("phantom.yaml", second)):
        Path(name).write_text(yaml.safe_dump(content))
    assert prepare.main(["--profile-file", "phantom.yaml"]) == 0
    waves = [
        {"profile_file": "params.yaml", "methods": ["head-only"], "seeds": [1]},
        {"profile_file": "phantom.yaml"},
        {"profile_file": "params.yaml", "seeds": [0, 1]},
    ]
    Path("plan.yaml").write_text(yaml.safe_dump(waves))
    return Params(**first), Params(**second)


def unpacked(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_campaign_trains_its_waves_in_order_and_packs_what_it_makes(plan, workdir, capsys):
    arguments = ["plan.yaml", "--skip-checks", "--jobs", "1", "--threads", "1", "--out", "back.tar.gz"]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    done = [line.split("] ")[1].split(" done;")[0] for line in out.splitlines() if " done;" in line]
    assert done[:3] == ["tiny: head-only tuning", "tiny: head-only seed 1", "phantom: head-only seed 0"]
    assert len(done) == 7 and "profile tiny, phantom: 5 of 5 runs are complete" in out
    there = unpacked("back.tar.gz", workdir / "there")
    tiny, phantom = plan
    for params in plan:
        for method in params.method:
            for seed in params.seeds:
                folder = params.run_dir(method, seed)
                assert {path.name: path.read_bytes() for path in (there / folder).iterdir()} == {
                    path.name: path.read_bytes() for path in folder.iterdir()
                }
    assert (there / tiny.tune_file("full")).is_file() and (there / "checkpoints/tiny/full/tune.log").is_file()
    assert not (there / "checkpoints/memory.json").exists() and not (there / "results/tiny/data").exists()
    # Nothing is left to do; a later campaign here packs what the first has made too, though its archive was moved away.
    assert command.main([*arguments[:-1], "again.tar.gz"]) == 0
    assert "5 of 5 runs are complete" in capsys.readouterr().out
    assert contents(unpacked("again.tar.gz", workdir / "again")) == contents(there)
    assert launch.main(["--dry-run"]) == 0


@pytest.mark.parametrize("absolute", [False, True])
def test_the_archive_has_what_is_new_of_all_profiles_and_is_written_when_something_is(workdir, monkeypatch, absolute):
    monkeypatch.setattr(campaign, "EVERY_S", 0)
    files = [Path("results/first/runs/a/0/record.json"), Path("results/second/runs/b/0/record.json")]
    early, log = Path("results/first/runs/a/1/record.json"), Path("checkpoints/first/a/0.log")
    cost = Path("checkpoints/first/cost/1f.json")  # not all measured yet
    for path in (*files, early, log, cost):
        path.parent.mkdir(parents=True)
    early.write_text("there before")
    archive, written = Path("results/back.tar.gz"), []  # among what is packed, and left out of itself
    archive = archive.absolute() if absolute else archive

    def launch(waves, make_pool, minutes, tick, first):
        for path in (log, cost, *([] if files[0].exists() else files[:1]), *([files[1]] if files[0].exists() else [])):
            path.write_text(path.name)
            os.utime(path, (0, 0))  # the clock was put back meanwhile
            tick()
        for _ in range(2):
            tick()
            written.append(archive.stat().st_ino)
        return 0

    monkeypatch.setattr(launcher, "launch", launch)
    for _ in range(2):  # the second makes the second file, and its archive has the first's too
        assert campaign.run([], pytest.fail, archive, checks=None) == 0
    assert written[0] == written[1] and written[2] == written[3]
    assert set(contents(unpacked(archive, workdir / "there"))) == {log, cost, *files}
    Path("checkpoints/first/a/0.pt").write_bytes(b"a checkpoint stays")
    with pytest.raises(UserError, match="expected the name of an archive.*found a name in .zip"):
        campaign.run([], pytest.fail, Path("back.zip"), checks=None)
    with pytest.raises(UserError, match="found a folder"):
        campaign.run([], pytest.fail, Path("results"), checks=None)


def test_a_killed_campaign_leaves_a_whole_archive_and_no_process(plan, workdir):
    script = (
        "import sys; from pipelines import campaign; from pipelines.launching import campaign as room\n"
        "room.EVERY_S = 0\n"
        "sys.exit(campaign.main(['plan.yaml', '--skip-checks', '--jobs', '1', '--out', 'back.tar.gz']))"
    )
    made, archive = Path("results/tiny/runs/head-only/1/record.json"), Path("back.tar.gz")
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: made.is_file() or process.poll() is not None)
        start = archive.stat().st_mtime_ns
        wait_for(lambda: archive.stat().st_mtime_ns > start or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    assert (unpacked(archive, workdir / "there") / made).is_file()
    wait_for(lambda: processes_in(workdir) == [" ".join(Path("/proc/self/cmdline").read_text().split("\0"))])


def test_nothing_is_trained_where_a_check_fails(plan, workdir):
    Path("test_wrong.py").write_text("def test_wrong():\n    assert False\n")
    waves = campaign.read_plan(Path("plan.yaml"))
    with pytest.raises(UserError, match="test_wrong.py failed: nothing is trained"):
        campaign.run(waves, lambda grid: None, Path("back.tar.gz"), checks=Path("test_wrong.py"))
    assert not Path("results/tiny/runs").exists() and contents(unpacked("back.tar.gz", workdir / "there")) == {}


def test_what_is_wrong_is_told_before_the_checks(plan, workdir):
    Path("test_told.py").write_text("def test_told():\n    open('told', 'w')\n")
    Path("file").touch()
    tiny, _ = plan
    good, checks = campaign.read_plan(Path("plan.yaml")), Path("test_told.py")
    with pytest.raises(ParamsError, match="seed 7 is not one of"):
        campaign.run([*good, Wave("params.yaml", tiny, seeds=[7])], pytest.fail, Path("back.tar"), checks=checks)
    with pytest.raises(OSError, match="file"):
        campaign.run(good, pytest.fail, Path("file/back.tar"), checks=checks)
    with (
        locked(Path("checkpoints/phantom/launch.lock")),
        pytest.raises(UserError, match="phantom/launch.lock: process"),
    ):
        campaign.run(good, pytest.fail, Path("back.tar"), checks=checks)
    assert not Path("told").exists()


DEAF = """
import signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); open('up', 'w'); time.sleep(100)"
subprocess.Popen([sys.executable, "-c", deaf])
"""


@pytest.mark.parametrize("ending", ["time.sleep(100)", "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(100)"])
def test_a_command_that_takes_too_long_is_interrupted_and_leaves_no_process(workdir, monkeypatch, ending):
    monkeypatch.setattr(campaign, "GRACE_S", 1)
    Path("slow.py").write_text(f"{DEAF}{ending}\n")
    assert campaign._call(["slow"], 3) == -(signal.SIGKILL if "SIG_IGN" in ending else signal.SIGINT)
    wait_for(lambda: processes_in(workdir) == [" ".join(Path("/proc/self/cmdline").read_text().split("\0"))])


def test_a_signal_during_the_checks_leaves_an_archive_and_no_process(plan, workdir):
    Path("test_slow.py").write_text(f"def test_slow():\n{indent(DEAF, '    ')}    time.sleep(100)\n")
    script = (
        "import sys; from pathlib import Path; from pipelines import _cli; from pipelines.launching import campaign\n"
        "waves, checks = campaign.read_plan(Path('plan.yaml')), Path('test_slow.py')\n"
        "run = lambda argv: campaign.run(waves, lambda grid: None, Path('back.tar.gz'), checks=checks)\n"
        "sys.exit(_cli.command(run)())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for(lambda: Path("up").exists() or process.poll() is not None)
        Path("results/new").write_text("made meanwhile")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1:]) == (130, ["interrupted; run the same command again to go on"])
    assert Path("results/new") in contents(unpacked("back.tar.gz", workdir / "there"))
    wait_for(lambda: processes_in(workdir) == [" ".join(Path("/proc/self/cmdline").read_text().split("\0"))])


@pytest.mark.parametrize(
    "text, words",
    [
        ("- {profile_file: params.yaml, method: [full]}", "unknown key '0.method'"),
        ("- {methods: [full]}", "missing key '0.profile_file'"),
        ("- {profile_file: none.yaml}", "none.yaml: no such file"),
        ("[]", "no wave"),
        ("- {profile_file: params.yaml, seeds: [x]}", "0.seeds.0"),
        ("[", "not valid YAML"),
        (b"# f\xfcr\n[]", "not valid YAML"),
    ],
)
def test_a_wrong_plan_is_one_clear_error(plan, text, words):
    Path("plan.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError, match=words.replace("[", r"\[")):
        campaign.read_plan(Path("plan.yaml"))
