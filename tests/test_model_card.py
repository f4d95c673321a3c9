import json

import pytest

from pipelines.evidence.summary import summarise
from report import model_card
from report.results import load
from tests import fake_results as fake


def results(where, monkeypatch, methods=("full", "head-only", "colora-blocks2-5"), **options):
    monkeypatch.chdir(where)
    params = fake.params(list(methods), seeds=(0, 1, 2))
    fake.write_profile(params, **options)
    summarise(params)
    return where / params.results_dir


def test_the_card_says_what_the_summary_says(tmp_path, monkeypatch):
    folder = results(tmp_path, monkeypatch)
    method = json.loads((folder / "summary.json").read_text())["colora-blocks2-5"]
    text = model_card.render(load(folder))
    assert text.startswith("# Model card: `colora-blocks2-5`, profile `fake`\n")
    assert f"Test accuracy {method['acc_mean']:.3f} [{method['acc_lo']:.3f}, {method['acc_hi']:.3f}]" in text
    assert f"{method['trainable']:,} of {method['total']:,} parameters train" in text
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
    own = scores[scores.method == "colora-blocks2-5"]
    text = model_card.render(load(folder))
    for name in own["class"].unique():
        assert f"| {name} | {own.recall[own['class'] == name].mean():.3f} |" in text


def test_no_colora_method_no_card(tmp_path, monkeypatch):
    assert model_card.render(load(results(tmp_path, monkeypatch, methods=("full", "head-only")))) is None


@pytest.mark.parametrize("name", ["`code`", "<b>x</b>", "a|b", "two\nlines"])
def test_names_from_data_cannot_form_markup(name):
    shown = model_card._code(name)
    assert "`" not in shown and "<" not in shown and "\n" not in shown and "|" not in shown.replace("\\|", "")
