import errno

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

import baselines
from pipelines.data.images import Prepared, open_prepared
from pipelines.data.sources import phantom
from pipelines.profile import Params, Train
from pipelines.profile.data import Phantom
from pipelines.training import loop, runner, step
from pipelines.training.loaders import batches_of
from tests.conftest import fit, tiny_params

CPU = torch.device("cpu")


def recipe(**changes):
    base = {"epochs": 3, "batch_size": 16, "lr": 2e-3, "input": "unit"}
    return Train(**{**base, **changes})


def network(section=None):
    torch.manual_seed(0)
    settings = {"backbone": "smallcnn", "weights": "random", "family": "full", **(section or {})}
    return baselines.build("method", settings, num_classes=4, image_size=32).to(memory_format=torch.channels_last)


def run(folder, train, section=None, **options):
    model = network(section)
    return model, fit(model, open_prepared(folder, 0, CPU), train, **options)


def numbers(fit):
    """The curves without the seconds."""
    return [{k: v for k, v in row.items() if k != "epoch_s"} for row in fit.curves]


def test_full_fine_tuning_learns(prepared):
    _, fit = run(prepared, recipe(epochs=6))
    assert fit.curves[-1]["train_loss"] < 0.5 * fit.curves[0]["train_loss"]
    assert max(row["val_acc"] for row in fit.curves) > 0.8  # chance is 0.25


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(prepared):
    _, first = run(prepared, recipe())
    _, again = run(prepared, recipe())
    assert numbers(first) == numbers(again)
    data = open_prepared(prepared, 0, CPU)
    other = fit(network(), data, recipe(), seed=1)
    assert numbers(first) != numbers(other)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "section, schedule, after",
    [
        ({}, "constant", 1),
        ({}, "one-cycle", 2),
        ({"family": "colora", "merge_reset": True}, "one-cycle", 1),
    ],
    ids=["full", "full-one-cycle", "merge-reset"],
)
def test_a_run_killed_after_an_epoch_ends_as_the_unbroken_one(prepared, tmp_path, schedule, section, after):
    train = recipe(schedule=schedule, augment="standard")
    _, whole = run(prepared, train, section)

    def kill(row):
        if row["epoch"] == after:
            raise Killed

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        run(prepared, train, section, checkpoint=checkpoint, identity="x", on_epoch=kill)
    torch.manual_seed(99)  # what a new process would find is not what the old one left
    _, resumed = run(prepared, train, section, checkpoint=checkpoint, identity="x")
    assert numbers(resumed) == numbers(whole)
    assert resumed.best_epoch == whole.best_epoch
    for name, tensor in whole.best_state.items():
        assert torch.equal(tensor, resumed.best_state[name]), name


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()], ids=["disk", "memory"])
def test_a_checkpoint_that_cannot_be_read_just_now_stays(prepared, tmp_path, monkeypatch, error):
    checkpoint = tmp_path / "checkpoint.pt"
    run(prepared, recipe(), checkpoint=checkpoint, identity="x")
    kept = checkpoint.read_bytes()

    def fails(path):
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(type(checkpoint), "read_bytes", fails)
        run(prepared, recipe(), checkpoint=checkpoint, identity="x")
    assert checkpoint.read_bytes() == kept


def test_a_checkpoint_of_other_settings_is_not_continued(prepared, tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    run(prepared, recipe(), checkpoint=checkpoint, identity="old")
    seen = []
    run(prepared, recipe(), checkpoint=checkpoint, identity="new", on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [1, 2, 3]


def test_best_epoch_is_the_first_with_the_highest_accuracy_and_lowest_loss(prepared):
    model, fit = run(prepared, recipe(epochs=4))
    merit = [(row["val_acc"], -row["val_loss"]) for row in fit.curves]
    assert fit.best_epoch == merit.index(max(merit)) + 1
    model.load_state_dict(fit.best_state)
    val = loop.evaluate(model, batches_of(open_prepared(prepared, 0, CPU), "val", recipe(), CPU), recipe(), CPU)
    assert (val.scores()["acc"], val.loss) == (merit[fit.best_epoch - 1][0], -merit[fit.best_epoch - 1][1])


def test_evaluation_scores_equal_sklearns(prepared):
    model, _ = run(prepared, recipe(epochs=1))
    seen = loop.evaluate(model, batches_of(open_prepared(prepared, 0, CPU), "test", recipe(), CPU), recipe(), CPU)
    np.testing.assert_array_equal(seen.labels, np.load(prepared / "labels.npy")[128:])
    np.testing.assert_allclose(seen.probabilities.sum(1), 1, atol=1e-6)
    assert seen.scores()["acc"] == np.mean(seen.probabilities.argmax(1) == seen.labels)
    exact = seen.probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    named = seen.probabilities.argmax(1)
    assert seen.scores()["balanced_acc"] == pytest.approx(balanced_accuracy_score(seen.labels, named))
    assert seen.loss == pytest.approx(log_loss(seen.labels, exact), rel=1e-5)
    assert seen.scores()["auc"] == pytest.approx(roc_auc_score(seen.labels, exact, multi_class="ovr"), abs=1e-6)


def test_binary_cross_entropy_is_the_mean_over_images_and_classes():
    logits = torch.randn(5, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    p = 1 / (1 + np.exp(-logits.numpy()))
    truth = np.eye(4)[labels]
    expected = -np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    assert step.Loss(recipe(loss="binary-cross-entropy"))(logits, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_authors_recipe_trains(prepared, optimizer):
    train = recipe(loss="binary-cross-entropy", augment="authors", optimizer=optimizer, epochs=4)
    _, fit = run(prepared, train)
    assert fit.curves[-1]["train_loss"] < fit.curves[0]["train_loss"]


def test_one_cycle_starts_low_and_ends_lower(prepared):
    _, fit = run(prepared, recipe(schedule="one-cycle", epochs=5, lr=1e-2))
    rates = [row["lr"] for row in fit.curves]
    assert rates[0] == pytest.approx(1e-2 / 25) and max(rates) > 5e-3 and rates[-1] < rates[1]


def test_a_loss_that_is_no_number_stops_the_run(prepared):
    model = network()
    with torch.no_grad():
        model.head[-1].weight.fill_(float("nan"))
    with pytest.raises(
        loop.Diverged, match=r"training loss is nan in epoch 1; lower method.NAME.train.lr \(now 0.002\)"
    ):
        fit(model, open_prepared(prepared, 0, CPU), recipe())


def test_test_images_are_not_read_while_training(prepared):
    """Spoil every test image: the curves must not change."""
    _, clean = run(prepared, recipe())
    images = np.load(prepared / "images.npy", mmap_mode="r+")
    images[128:] = 0
    images.flush()
    _, spoiled = run(prepared, recipe())
    assert numbers(clean) == numbers(spoiled)


def test_set_up_draws_the_same_network_for_the_same_seed(prepared):
    params = Params(**tiny_params())
    heads = []
    for seed in (0, 0, 1):
        *_, model = runner.set_up(params, "head-only", seed, params.settings("head-only"), "cpu")
        heads.append(model.head[0].weight.detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_small_cnn_learns_the_phantom_but_not_to_the_end():
    """Chance is 0.25; some lesions are too faint to see, so that nothing gets them all."""
    images, labels, splits = phantom.generate(Phantom(train=600, val=200, test=4), 32)
    data = Prepared(torch.from_numpy(images), torch.from_numpy(labels), splits, ["CNV", "DME", "DRUSEN", "NORMAL"])
    train = recipe(epochs=8, batch_size=32, schedule="one-cycle", augment="flip")
    done = fit(network(), data, train)
    assert 0.5 < done.curves[-1]["val_acc"] < 0.97


def test_a_large_checkpoint_is_written_only_after_longer_training_than_it_takes(tmp_path, monkeypatch):
    from pipelines.training import checkpoint

    model, path = torch.nn.Linear(2, 2), tmp_path / "run.pt"
    optimizer, seconds = torch.optim.SGD(model.parameters()), 1000.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: seconds)

    def saved(after):
        nonlocal seconds
        seconds += after
        path.unlink(missing_ok=True)
        checkpoint.save(path, "id", model, optimizer, None, checkpoint.Fit())
        return path.exists()

    checkpoint.resume(path, "id", model, optimizer, None)
    assert saved(0) and saved(0)
    monkeypatch.setattr(checkpoint, "SMALL", 0)
    monkeypatch.setattr(checkpoint, "RATE", 24 / 2.0)  # 6 float32 numbers take 2 seconds
    assert [saved(after) for after in (1.9, 0.2, 1.9, 0.2)] == [False, True, False, True]
    checkpoint.resume(path, "id", model, optimizer, None)
    assert not saved(1.9)
