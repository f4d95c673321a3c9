"""What a recipe may ask for beyond the plain loop: losses, samplers, schedules, how the best epoch is chosen."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from pipelines.data.images import Batches
from pipelines.data.prepared import Prepared, open_prepared
from pipelines.profile import Params, Train
from pipelines.training import loop, step, trials
from tests.conftest import fit, tiny_params
from tests.test_loop import network, recipe

CPU = torch.device("cpu")
LOGITS, LABELS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 0, 1])


def softmax_loss(logits, labels, weights, smoothing):
    """Weighted cross-entropy with smoothed targets in float64, written out."""
    log_p = logits.double().log_softmax(1).numpy()
    targets = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    return -(targets * log_p * weights).sum() / weights[labels].sum()


def test_balanced_class_weights_are_scikit_learns():
    counts = torch.bincount(LABELS)
    loss = step.Loss(recipe(class_weights="balanced"), counts)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=LABELS.numpy())
    np.testing.assert_allclose(loss.weight, expected, rtol=1e-6)
    assert loss(LOGITS, LABELS).item() == pytest.approx(softmax_loss(LOGITS, LABELS, expected, 0.0), rel=1e-5)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0]])
def test_label_smoothing_and_stated_weights_by_the_formula(weights):
    loss = step.Loss(recipe(label_smoothing=0.1, class_weights=weights))
    expected = softmax_loss(LOGITS, LABELS, np.ones(4) if weights is None else np.array(weights), 0.1)
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_binary_cross_entropy_by_the_formula():
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    p, targets = 1 / (1 + np.exp(-LOGITS.double().numpy())), np.eye(4)[LABELS] * 0.8 + 0.05
    each = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(1)
    expected = (each * weights[LABELS]).sum() / weights[LABELS].sum()
    loss = step.Loss(recipe(loss="binary-cross-entropy", label_smoothing=0.2, class_weights=list(weights)))
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_a_balanced_sampler_shows_rare_classes_as_often():
    labels = np.array([0] * 900 + [1] * 100)
    data = Prepared(
        torch.zeros(1000, 4, 4, dtype=torch.uint8), torch.from_numpy(labels), {"train": np.arange(1000)}, ["a", "b"]
    )
    batches = Batches(data, "train", batch_size=100, input="unit", device=CPU, balanced=True)
    seen = torch.cat([own for _, own in batches.shuffled(torch.Generator().manual_seed(0))])
    # 1,000 draws at 1/2: five standard deviations are 0.08.
    assert len(seen) == 1000 and seen.float().mean().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_and_a_cosine_schedule_learn(prepared, optimizer):
    done = fit(
        network(), open_prepared(prepared, 0, CPU), recipe(optimizer=optimizer, lr=5e-3, epochs=4, schedule="cosine")
    )
    assert done.curves[-1]["train_loss"] < done.curves[0]["train_loss"]
    assert done.curves[-1]["lr"] < done.curves[0]["lr"]


def test_cosine_schedule_by_the_formula():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule, rates = step.make_schedule(optimizer, recipe(schedule="cosine", lr=0.1), steps=10), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.05 * (1 + np.cos(np.pi * t / 10)) for t in range(10)])


CURVES = [
    {"epoch": 1, "val_acc": 0.5, "val_balanced_acc": 0.6, "val_auc": 0.7, "val_loss": 0.9},
    {"epoch": 2, "val_acc": 0.7, "val_balanced_acc": 0.5, "val_auc": 0.9, "val_loss": 0.8},
    {"epoch": 3, "val_acc": 0.7, "val_balanced_acc": 0.4, "val_auc": 0.8, "val_loss": 0.5},
    {"epoch": 4, "val_acc": 0.6, "val_balanced_acc": 0.3, "val_auc": 0.6, "val_loss": 0.4},
]


@pytest.mark.parametrize("select, expected", [("acc", 3), ("balanced_acc", 1), ("auc", 2), ("loss", 4)])
def test_the_best_epoch_is_chosen_by_what_the_recipe_names(select, expected):
    assert loop.best_epoch(CURVES, select) == expected


def test_patience_ends_a_run_after_epochs_without_a_better_one(prepared, monkeypatch):
    merits = iter([0.5, 0.7, 0.6, 0.6, 0.9, 0.9])
    monkeypatch.setattr(
        loop.Evaluation, "scores", lambda self: {"acc": next(merits), "balanced_acc": 0.0, "auc": 0.0, "loss": 1.0}
    )
    done = fit(network(), open_prepared(prepared, 0, CPU), recipe(epochs=6, patience=2))
    assert len(done.curves) == 4 and done.best_epoch == 2


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({1e-3: 0.9, 1e-2: 0.5}, 1e-4),  # the lowest
        ({1e-3: 0.5, 3e-3: 0.9}, 9e-3),  # the highest, in the grid's own step
        ({1e-4: 0.5, 1e-3: 0.9, 1e-2: 0.5}, None),  # inside
        ({1e-3: 0.9}, None),  # alone
        ({1e-6: 0.9, 1.0: 0.5}, 1e-7),  # tenfold at most
    ],
)
def test_a_grid_grows_at_the_edge_where_its_best_rate_lies(scores, expected):
    found = [{"lr": lr, "val_acc": acc, "val_loss": 1.0, "seeds": 1, "failure": None} for lr, acc in scores.items()]
    more = trials.beyond(found, "acc")
    assert more is None if expected is None else more == pytest.approx(expected)


def test_the_widened_grid_is_tried_and_bounded(prepared, monkeypatch):
    params = Params(**tiny_params(tune={"lrs": [1e-3, 2e-3], "epochs": 1, "widen": 2}))
    tried = []

    def trial(_params, _method, seed, train, _settings, _device):
        tried.append(train["lr"])
        scores = dict.fromkeys(trials.SCORES, train["lr"])
        return {"lr": train["lr"], "seed": seed, **scores, "failure": None}

    monkeypatch.setattr(trials, "_trial", trial)
    assert trials.choose(params, "full")["chosen"] == pytest.approx(8e-3)
    assert tried == pytest.approx([1e-3, 2e-3, 4e-3, 8e-3])


def test_a_trials_epochs_follow_the_methods_where_none_are_stated():
    params = Params(**tiny_params(tune={"lrs": [1e-3], "epochs": None}))
    assert [params.tune.epochs_of(n) for n in (1, 8, 36)] == [1, 3, 14]


def test_what_is_kept_on_disk_is_no_part_of_a_runs_identity(prepared):
    from pipelines.training import runner

    params = Params(**tiny_params())
    settings = params.settings("full")
    assert Train.model_validate(settings["train"]).keep is None
    kept = {**settings, "train": {**settings["train"], "keep": "none"}}
    assert runner.identity(params, "full", settings, 0) == runner.identity(params, "full", kept, 0)
    other = {**settings, "train": {**settings["train"], "label_smoothing": 0.1}}
    assert runner.identity(params, "full", settings, 0) != runner.identity(params, "full", other, 0)
