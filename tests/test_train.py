import itertools
import json
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines import cost, evaluate, prepare, train, tune
from pipelines.files import records
from pipelines.files.locks import locked
from pipelines.profile import Params, ParamsError
from pipelines.training import counting, loop, runner, saved, tuning
from tests.conftest import tiny_params
from tests.test_faults_files import stopped_after
from tests.test_sources_folder import write_classes


def profile(folder, **changes):
    content = tiny_params(**changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return Params(**content)


def read(method, seed=0):
    return json.loads((runner.Path("results/tiny/runs") / method / str(seed) / "record.json").read_text())


def without_times(record):
    record = dict(record)
    for key in ("timings", "environment"):
        record.pop(key)
    return record


def test_a_run_leaves_its_record_curves_and_predictions(prepared, workdir, capsys):
    params = profile(workdir)
    assert train.main(["--method", "colora-blocks2-5", "--seed", "0"]) == 0
    record, folder = read("colora-blocks2-5"), params.run_dir("colora-blocks2-5", 0)
    assert record["status"] == "complete" and record["failure"] is None
    assert record["settings"]["blocks"] == [2, 5] and record["settings"]["train"]["lr"] == 2e-3
    assert record["data"] == {"train": 96, "val": 32, "test": 32, "classes": ["class0", "class1", "class2", "class3"]}
    assert 0 < record["parameters"]["trainable"] < record["parameters"]["total"]
    assert {"python", "torch", "cpu", "threads", "gpu", "commit", "date"} <= set(record["environment"])
    with np.load(folder / "predictions.npz", allow_pickle=False) as predictions:
        assert predictions["indices"].tolist() == list(range(128, 160))
        acc = np.mean(predictions["probabilities"].argmax(1) == predictions["labels"])
    assert acc == record["metrics"]["test"]["acc"]
    curves = (folder / "curves.csv").read_text().splitlines()
    assert (
        curves[0] == "epoch,lr,train_loss,train_acc,val_loss,val_acc,val_balanced_acc,val_auc,epoch_s"
        and len(curves) == 3
    )
    assert not list((workdir / "checkpoints").rglob("*.pt"))
    assert "colora-blocks2-5 seed 0: accuracy" in capsys.readouterr().out


def test_a_run_that_another_process_trains_is_left_to_it(prepared, workdir, monkeypatch, capsys):
    params = profile(workdir, method={"full": {"family": "full"}}, seeds=[0], tune={"lrs": [1e-3, 3e-3], "epochs": 1})
    for command, name in ((tune, "tune"), (train, "0")):
        path = Path(f"checkpoints/tiny/full/{name}.lock")
        with locked(path):
            assert command.main(["--method", "full"]) == 1
        assert f"{path}: process {os.getpid()} on" in capsys.readouterr().err
        assert command.main(["--method", "full"]) == 0
    done = params.run_dir("full", 0).rename("done")
    capsys.readouterr()

    @contextmanager
    def late(path):  # the other process ends between the look at its record and the lock
        done.rename(params.run_dir("full", 0))
        yield

    monkeypatch.setattr(runner, "locked", late)
    monkeypatch.setattr(runner, "train_run", None)
    assert train.main(["--method", "full"]) == 0 and capsys.readouterr().out == "full seed 0: complete, kept\n"


def test_the_same_seed_gives_an_identical_record(prepared, workdir):
    params = profile(workdir)
    runner.run_method(params, "adapters", [0])
    first, predictions = read("adapters"), (params.run_dir("adapters", 0) / "predictions.npz").read_bytes()
    (params.run_dir("adapters", 0) / "record.json").unlink()
    runner.run_method(params, "adapters", [0])
    assert without_times(read("adapters")) == without_times(first)
    assert (params.run_dir("adapters", 0) / "predictions.npz").read_bytes() == predictions


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_legs(prepared, workdir, monkeypatch):
    params = profile(workdir, train={**tiny_params()["train"], "epochs": 3})
    for _ in range(2):  # legs of an epoch each, by a clock that is a thousand seconds on whenever it is read
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(time, "monotonic", itertools.count(0.0, 1000.0).__next__)
            patch.setattr(loop, "evaluate", stopped_after(1))
            runner.run_method(params, "head-only", [0])
    runner.run_method(params, "head-only", [0])
    assert len((params.run_dir("head-only", 0) / "curves.csv").read_text().splitlines()) == 4
    assert read("head-only")["timings"]["total_s"] > 2000


def test_a_complete_run_is_kept_and_a_stale_one_trained_again(prepared, workdir, capsys):
    params = profile(workdir)
    runner.run_method(params, "head-only", [0])
    date = read("head-only")["environment"]["date"]
    capsys.readouterr()
    runner.run_method(params, "head-only", [0])
    assert "complete, kept" in capsys.readouterr().out and read("head-only")["environment"]["date"] == date
    changed = profile(workdir, train={"epochs": 1, "batch_size": 16, "lr": 2e-3, "input": "unit"})
    runner.run_method(changed, "head-only", [0])
    assert read("head-only")["settings"]["train"]["epochs"] == 1


def test_square_scans_prepared_in_another_way_are_trained_on_again(workdir, capsys):
    """The arrays are equal and the fingerprint too, but the kept network would prepare new scans in the old way."""
    write_classes(workdir / "scans", size=(32, 32))
    folder = {"path": "scans", "folds": 3, "val_share": 0.25}
    told, images, ways = [], [], []
    for fit in ("crop", "pad", "pad"):
        data = {"source": "folder", "image_size": 32, "fit": fit, "folder": folder}
        params = profile(workdir, seeds=[0], data=data)
        assert prepare.main([]) == 0 and train.main(["--method", "head-only"]) == 0
        told.append("complete, kept" in capsys.readouterr().out)
        images.append((params.data_dir / "images.npy").read_bytes())
        ways.append(saved.read_card(params.model_dir("head-only", 0)).preprocessing["fit"])
    assert told == [False, False, True] and images[0] == images[1] and ways == ["crop", "pad", "pad"]
    saved_card = params.model_dir("head-only", 0) / saved.CARD
    saved_card.unlink()  # a run whose weights lie elsewhere is complete
    assert train.main(["--method", "head-only"]) == 0 and "complete, kept" in capsys.readouterr().out


def test_an_interrupt_among_a_runs_files_leaves_no_record_of_the_run_before(prepared, workdir, monkeypatch):
    """It would stand over files of both, and count as complete once the old settings are back."""
    params = profile(workdir)
    runner.run_method(params, "head-only", [0])
    changed = profile(workdir, train={"epochs": 1, "batch_size": 16, "lr": 2e-3, "input": "unit"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved, "save", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        runner.run_method(changed, "head-only", [0])
    assert not (params.run_dir("head-only", 0) / "record.json").exists()
    runner.run_method(params, "head-only", [0])
    assert read("head-only")["settings"]["train"]["lr"] == params.train.lr


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], [1.0] * 5])
@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_a_weight_a_class_is_asked_for(prepared, workdir, capsys, weights, loss):
    profile(workdir, method={"full": {"family": "full", "train": {"class_weights": weights, "loss": loss}}})
    assert train.main(["--method", "full", "--seed", "0"]) == 1
    told = capsys.readouterr().err
    assert f"train.class_weights of full: found {len(weights)}, expected one for each of class0, class1" in told


def test_all_seeds_of_the_profile_by_default(prepared, workdir):
    profile(workdir)
    assert train.main(["--method", "head-only"]) == 0
    assert read("head-only", 0)["seed"] == 0 and read("head-only", 1)["seed"] == 1


def test_a_diverging_run_leaves_a_record_of_why_and_does_not_stop_the_others(prepared, workdir, monkeypatch, capsys):
    profile(workdir)
    from pipelines.training import loop

    fit = loop.fit

    def diverges_for_seed_0(*args, seed, **kwargs):
        if seed == 0:
            raise loop.Diverged("training loss is nan in epoch 1")
        return fit(*args, seed=seed, **kwargs)

    monkeypatch.setattr(loop, "fit", diverges_for_seed_0)
    assert train.main(["--method", "head-only"]) == 1
    failed = read("head-only", 0)
    assert failed["status"] == "failed" and "nan in epoch 1" in failed["failure"] and failed["metrics"] is None
    assert read("head-only", 1)["status"] == "complete"
    assert "seed 0: training loss is nan" in capsys.readouterr().err


def test_entropies_of_the_training_images_on_request(prepared, workdir):
    content = tiny_params()
    params = profile(workdir, train={**content["train"], "save_entropies": True})
    runner.run_method(params, "head-only", [0])
    with np.load(params.run_dir("head-only", 0) / "entropies.npz", allow_pickle=False) as stored:
        assert stored["indices"].tolist() == list(range(96))
        assert ((stored["entropy"] > 0) & (stored["entropy"] <= np.log(4) + 1e-9)).all()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--method", "colora-block2-5"], "did you mean 'colora-blocks2-5'"),
        (["--method", "full", "--seed", "7"], "seed 7 is not one of full's: [0, 1]"),
        (["--method", "full", "--profile-file", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_wrong_arguments_are_errors_without_traceback(prepared, workdir, capsys, arguments, words):
    profile(workdir)
    assert train.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_a_tuned_method_trains_at_the_rate_chosen_and_not_before_there_is_one(prepared, workdir, capsys):
    params = profile(workdir, tune={"lrs": [1e-6, 5e-3], "epochs": 2})
    assert train.main(["--method", "full", "--seed", "0"]) == 1
    assert "full.json is not there; run `python -m pipelines.tune --method full` first" in capsys.readouterr().err
    tuning.tune_method(params, "full")
    assert train.main(["--method", "full", "--seed", "0"]) == 0
    assert read("full")["settings"]["train"]["lr"] == 5e-3
    profile(workdir, tune={"lrs": [1e-6, 5e-3], "epochs": 3})
    assert train.main(["--method", "full", "--seed", "0"]) == 1
    assert "was made with other settings, data or code" in capsys.readouterr().err


def test_the_record_counts_parameters_and_flops(prepared, workdir):
    params = profile(workdir)
    runner.run_method(params, "adapters", [0])
    counted = counting.count_method("adapters", params.settings("adapters"), num_classes=4, image_size=32)
    assert read("adapters")["parameters"] == counted


def test_a_failed_run_is_a_hole_where_the_profile_allows_holes(prepared, workdir, monkeypatch, capsys):
    from pipelines.training import loop

    def diverges(*args, **kwargs):
        raise loop.Diverged("training loss is nan in epoch 1")

    monkeypatch.setattr(loop, "fit", diverges)
    assert runner.run_method(profile(workdir), "head-only", [0]) == 1
    assert runner.run_method(profile(workdir, allow_missing=True), "head-only", [0]) == 0
    assert "training loss is nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "section, words",
    [
        ({"family": "conv_lora", "alpha": 1}, "family 'conv_lora' needs an option 'rank'"),
        ({"family": "conv_lora", "rank": "8", "alpha": 1}, "rank: found '8', expected int"),
        ({"family": "colora", "blocks": 5}, "blocks: found 5, expected tuple[int, int]"),
    ],
)
def test_an_option_missing_or_of_the_wrong_type_is_named_with_the_method(prepared, workdir, capsys, section, words):
    profile(workdir, method={"odd": section})
    assert train.main(["--method", "odd"]) == 1
    assert f"method 'odd': {words}" in capsys.readouterr().err


def test_an_method_that_cannot_be_built_is_named(prepared, workdir, capsys):
    profile(workdir, method={"odd": {"family": "full", "backbone": "resnet81"}})
    assert train.main(["--method", "odd"]) == 1
    message = capsys.readouterr().err
    assert "odd" in message and "resnet81" in message and "resnet18" in message


def test_missing_data_or_weights_say_what_to_do(workdir, prepared, capsys):
    profile(workdir, profile="other")
    assert train.main(["--method", "full"]) == 1
    assert "python -m pipelines.prepare" in capsys.readouterr().err
    profile(workdir, model={"backbone": "smallcnn", "weights": "none.safetensors"})
    assert train.main(["--method", "full"]) == 1
    assert "none.safetensors" in capsys.readouterr().err


def test_an_unreadable_record_is_an_error_that_names_it(prepared, workdir, capsys):
    params = profile(workdir)
    folder = params.run_dir("full", 0)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    with pytest.raises(records.RecordError, match="record.json: not readable.*train the run again"):
        runner.run_method(params, "full", [0])


def test_unknown_method_raises_before_anything_is_imported():
    with pytest.raises(ParamsError):
        runner.run_method(Params(**tiny_params()), "none", [0])


@pytest.mark.parametrize(
    ("device", "message"),
    [("foo", "found 'foo', expected cpu, cuda or cuda:N"), ("cuda:x", "expected"), ("cuda:99", "can use .* GPUs here")],
)
def test_a_device_that_is_not_there_is_told_before_anything_is_read(tmp_path, monkeypatch, capsys, device, message):
    monkeypatch.chdir(tmp_path)
    for command in (train, cost, evaluate):
        with pytest.raises(SystemExit) as ended:
            command.main(
                ["--method", "full", "--folder", "x"][: 4 if command is evaluate else 2] + ["--device", device]
            )
        assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)
