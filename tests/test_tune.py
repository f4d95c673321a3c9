"""Tuning: the same rates for every method, on validation alone, every trial recorded, nothing done twice."""

import json

import numpy as np
import pytest
import yaml

from pipelines import tune
from pipelines.profile import Params, ParamsError
from pipelines.training import loop, trials, tuning
from tests.conftest import tiny_params


def profile(folder, **changes):
    content = tiny_params(**changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return Params(**content)


def recorded(params, method):
    return json.loads(params.tune_file(method).read_text())


def test_every_rate_is_tried_and_the_best_on_validation_chosen(prepared, workdir):
    params = profile(workdir, tune={"lrs": [1e-6, 5e-3], "epochs": 2, "seeds": [1], "widen": 0})
    assert tune.main(["--method", "full"]) == 0
    record = recorded(params, "full")
    assert [t["lr"] for t in record["trials"]] == [1e-6, 5e-3] and (record["seeds"], record["epochs"]) == ([1], 2)
    best = max(record["trials"], key=lambda t: (t["val_acc"], -t["val_loss"]))
    assert record["chosen"] == best["lr"] == tuning.chosen_lr(params, "full") == 5e-3  # 1e-6 goes nowhere


def test_test_images_are_never_looked_at(prepared, workdir, monkeypatch):
    """Spoiling them changes no trial."""
    params = profile(workdir, tune={"lrs": [1e-3], "epochs": 1})
    before = tuning.tune_method(params, "head-only")
    images = np.load(prepared / "images.npy")
    with np.load(prepared / "splits.npz") as splits:
        images[splits["test"]] = 0
    np.save(prepared / "images.npy", images)
    monkeypatch.setattr("pipelines.data.prepared.verify", lambda params: None)  # which would notice
    params.tune_file("head-only").unlink()
    assert tuning.tune_method(params, "head-only")["trials"] == before["trials"]


def test_a_rate_that_diverges_is_recorded_and_nothing_is_done_again(prepared, workdir, monkeypatch):
    params = profile(workdir, tune={"lrs": [1e-3, 1e30], "epochs": 1, "widen": 0})
    record = tuning.tune_method(params, "full")
    assert record["chosen"] == 1e-3 and "loss is" in record["trials"][1]["failure"]
    monkeypatch.setattr(loop, "fit", None)  # a second call trains nothing
    assert tuning.tune_method(params, "full") == record


def test_when_every_rate_diverges_the_method_is_named(prepared, workdir, capsys):
    profile(workdir, tune={"lrs": [1e30], "epochs": 1})
    assert tune.main(["--method", "full"]) == 1
    assert (
        "error: full: tune.lrs [1e+30]: no trial of full came to an end (training loss is nan in epoch 1"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("changes", [{"tune": None}, {"method": {"full": {"family": "full", "train": {"lr": 5e-4}}}}])
def test_a_stated_rate_is_not_tuned_and_the_record_says_so(prepared, workdir, changes):
    params = profile(workdir, **{"tune": {"lrs": [1e-3], "epochs": 1}, **changes})
    tuning.tune_method(params, "full")
    record = recorded(params, "full")
    assert record["chosen"] is None and record["trials"] == [] and not params.tuned("full")


def test_a_choice_made_with_other_settings_is_refused_and_made_again(prepared, workdir):
    tuning.tune_method(profile(workdir, tune={"lrs": [1e-3], "epochs": 1}), "full")
    changed = profile(workdir, tune={"lrs": [2e-3], "epochs": 1})
    with pytest.raises(
        ParamsError, match="full.json was made with other settings.*python -m pipelines.tune --method full"
    ):
        tuning.chosen_lr(changed, "full")
    assert tuning.tune_method(changed, "full")["chosen"] == 2e-3


def test_all_methods_by_default_and_one_that_fails_does_not_cost_the_others_their_trials(prepared, workdir, capsys):
    methods = {"odd": {"family": "full", "train": {"share": 0.5}}, "head-only": {"family": "head_only"}}
    params = profile(workdir, method=methods, tune={"lrs": [1e-3], "epochs": 1})
    assert tune.main([]) == 1
    assert "no split 'train@0.5'" in capsys.readouterr().err
    assert recorded(params, "head-only")["chosen"] == 1e-3 and not params.tune_file("odd").exists()


def test_a_method_that_cannot_be_built_is_told_before_any_trains(prepared, workdir, capsys):
    methods = {"head-only": {"family": "head_only"}, "odd": {"family": "full", "backbone": "resnet81"}}
    params = profile(workdir, method=methods, tune={"lrs": [1e-3], "epochs": 1})
    assert tune.main([]) == 1
    assert "error: profile tiny: method 'odd': backbone: no 'resnet81'" in capsys.readouterr().err
    assert not params.tune_file("head-only").exists()


def test_an_unknown_method_is_an_error_without_traceback(prepared, workdir, capsys):
    profile(workdir)
    assert tune.main(["--method", "ful"]) == 1
    assert "did you mean 'full'" in capsys.readouterr().err


def scripted(monkeypatch, scores):
    """Trials whose validation accuracy is `scores(lr, seed)`; returns the (lr, seed) tried, in their order."""
    tried = []

    def trial(params, method, seed, train, settings, device):
        tried.append((train["lr"], seed))
        score = scores(train["lr"], seed)
        found = dict.fromkeys(trials.SCORES, score) | {"val_loss": None if score is None else 1 - score}
        failure = "training loss is nan" if score is None else None
        return {"lr": train["lr"], "seed": seed, **found, "best_epoch": 1, "failure": failure}

    monkeypatch.setattr(trials, "_trial", trial)
    return tried


def race(workdir, **changes):
    tune = {"lrs": [1e-4, 1e-3, 1e-2], "epochs": 1, "seeds": [0, 1, 2], "within": 0.03, **changes}
    return profile(workdir, seeds=[0, 1, 2], tune=tune)


def test_rates_near_the_best_on_one_seed_are_tried_on_the_others_and_the_best_mean_is_chosen(
    prepared, workdir, monkeypatch
):
    """What six images of a hundred say on the first seed, the other seeds say the opposite of."""
    table = {1e-4: (0.50, 0.99, 0.99), 1e-3: (0.66, 0.60, 0.61), 1e-2: (0.60, 0.63, 0.66), 1e-1: (0.5, 0.5, 0.5)}
    tried = scripted(monkeypatch, lambda lr, seed: table[lr][seed])
    record = tuning.tune_method(race(workdir, within=0.06), "full")
    near = [
        (1e-3, 1),
        (1e-2, 1),
        (1e-3, 2),
        (1e-2, 2),
    ]  # 0.06 behind is near enough, though 0.66 - 0.06 rounds to more than 0.60
    edge = [(1e-1, 0), (1e-1, 1), (1e-1, 2)]  # the best mean is at the edge of the grid: one more on all seeds
    assert tried == [(1e-4, 0), (1e-3, 0), (1e-2, 0), *near, *edge]
    assert record["chosen"] == 1e-2 and record["seeds"] == [0, 1, 2]  # not 1e-4, whose means are of nothing
    rows = {row["lr"]: row for row in trials.standing(record["trials"])}
    assert rows[1e-2]["val_acc"] == pytest.approx((0.60 + 0.63 + 0.66) / 3) and rows[1e-2]["seeds"] == 3
    assert rows[1e-4]["seeds"] == 1


def test_a_rate_that_fails_on_another_seed_is_out(prepared, workdir, monkeypatch):
    scripted(monkeypatch, lambda lr, seed: {1e-4: 0.5, 1e-3: 0.9, 1e-2: None if seed == 2 else 0.92}[lr])
    record = tuning.tune_method(race(workdir, widen=0), "full")
    assert record["chosen"] == 1e-3
    assert trials.standing(record["trials"])[2] | {"failure": None} == {
        "lr": 1e-2, **dict.fromkeys(trials.SCORES), "seeds": 3, "failure": None,
    }  # fmt: skip


def test_a_clear_winner_is_tried_no_further_and_neither_is_any_where_one_seed_decides(prepared, workdir, monkeypatch):
    tried = scripted(monkeypatch, lambda lr, seed: {1e-4: 0.5, 1e-3: 0.95, 1e-2: 0.7}[lr])
    assert tuning.tune_method(race(workdir), "full")["chosen"] == 1e-3
    assert tried == [(1e-4, 0), (1e-3, 0), (1e-2, 0)]
    tried.clear()
    assert tuning.tune_method(race(workdir, seeds=[1]), "full")["chosen"] == 1e-3
    assert tried == [(1e-4, 1), (1e-3, 1), (1e-2, 1)]


def test_the_grid_grows_no_further_in_the_race_than_the_first_seed_left(prepared, workdir, monkeypatch):
    tried = scripted(monkeypatch, lambda lr, seed: lr if seed == 0 else -lr)  # the highest on one, the lowest on others
    assert tuning.tune_method(race(workdir, lrs=[1e-3, 1e-2], widen=1, within=1), "full")["chosen"] == 1e-3
    assert tried[:3] == [(1e-3, 0), (1e-2, 0), (1e-1, 0)] and {lr for lr, _ in tried} == {1e-3, 1e-2, 1e-1}


def test_a_race_by_the_loss_starts_on_the_seed_that_is_named_first(prepared, workdir, monkeypatch):
    """Losses are 1 - score: on seed 2 those of two rates are near, on the others the second is far lower."""
    table = {1e-4: {2: 0.1}, 1e-3: {2: 0.90, 0: 0.5, 1: 0.5}, 1e-2: {2: 0.88, 0: 0.8, 1: 0.8}}
    tried = scripted(monkeypatch, lambda lr, seed: table[lr][seed])
    params = race(workdir, seeds=[2, 0, 1], widen=0)
    params = params.model_copy(update={"train": params.train.model_copy(update={"select": "loss"})})
    assert tuning.tune_method(params, "full")["chosen"] == 1e-2
    assert tried == [(1e-4, 2), (1e-3, 2), (1e-2, 2), (1e-3, 0), (1e-2, 0), (1e-3, 1), (1e-2, 1)]


def test_seeds_and_nearness_count_in_what_a_choice_is_recognised_by(prepared, workdir):
    identities = {
        trials.identity(race(workdir, **changes), "full")
        for changes in ({}, {"seeds": [0]}, {"seeds": [0, 1]}, {"seeds": [1, 0]}, {"within": 0.01})
    }
    assert len(identities) == 5
