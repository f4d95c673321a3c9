import json

import pytest

from pipelines.summary import summarise
from report import model_card
from report.results import load
from tests import fake_results as fake


def results(where, monkeypatch, arms=("full", "transfer", "colora-blocks2-5"), **options):
    monkeypatch.chdir(where)
    params = fake.params(list(arms), seeds=(0, 1, 2))
    fake.write_profile(params, **options)
    summarise(params)
    return where / params.results_dir


def test_the_card_says_what_the_summary_says(tmp_path, monkeypatch):
    folder = results(tmp_path, monkeypatch)
    arm = json.loads((folder / "summary.json").read_text())["colora-blocks2-5"]
    text = model_card.render(load(folder))
    assert text.startswith("# Model card: `colora-blocks2-5`, profile `fake`\n")
    assert f"Test accuracy {arm['acc_mean']:.3f} [{arm['acc_lo']:.3f}, {arm['acc_hi']:.3f}]" in text
    assert f"{arm['trainable']:,} of {arm['total']:,} parameters train" in text
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [  # section 4 of arXiv:1810.03993, training data joined to evaluation data
        "Model details", "Intended use", "Factors", "Metrics", "Training and evaluation data", "Quantitative analyses",
        "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert "Not for diagnosis" in text and "nan" not in text.lower().replace("financ", "")


def test_recall_of_each_class_is_the_mean_over_seeds(tmp_path, monkeypatch):
    import pandas as pd

    folder = results(tmp_path, monkeypatch)
    scores = pd.read_csv(folder / "class_scores.csv")
    own = scores[scores.arm == "colora-blocks2-5"]
    text = model_card.render(load(folder))
    for name in own["class"].unique():
        assert f"| {name} | {own.recall[own['class'] == name].mean():.3f} |" in text


def test_no_colora_arm_no_card(tmp_path, monkeypatch):
    assert model_card.render(load(results(tmp_path, monkeypatch, arms=("full", "transfer")))) is None


@pytest.mark.parametrize("name", ["`code`", "<b>x</b>", "a|b", "two\nlines"])
def test_names_from_data_cannot_form_markup(name):
    shown = model_card._code(name)
    assert "`" not in shown and "<" not in shown and "\n" not in shown and "|" not in shown.replace("\\|", "")
