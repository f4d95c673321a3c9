"""The report on made-up results: its files against the results, holes, errors, and looks that can be computed."""

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.evidence.summary import summarise
from report import comparisons, figures, ranks, style, tables
from report.__main__ import build, main
from report.page import about_data, provenance
from report.results import ReportError, counterparts, load, span
from tests import fake_results as fake

ROOT = Path(__file__).parents[1]
FIGURES = [
    "accuracy", "beside_paper", "confusion", "cost", "critical_difference", "flops", "learning_curves", "parameters",
    "reliability", "stability",
]  # fmt: skip


def write_results(where, methods, monkeypatch, source="folder", skip=(), **options):
    """Summarised made-up results, with a data card; returns their folder."""
    monkeypatch.chdir(where)
    params = fake.params(methods, allow_missing=bool(skip), **options)
    fake.write_profile(params, skip=skip, n_test=80)
    summarise(params)
    data = params.results_dir / "data"
    data.mkdir()
    patients = 633 if source == "folder" else None
    card = {"settings": {"source": source}, "count": 1000, "patients": patients}
    (data / "card.json").write_text(json.dumps(card))
    (data / "card.md").write_text("# Data card\n\n- Source: made up\n\n## Counts\n\n![examples](examples.png)\n")
    return where / params.results_dir


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A report over five methods and two seeds, one run and one whole method missing: (results folder, report folder)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        where = tmp_path_factory.mktemp("report")
        methods = ["full", "head-only", "bitfit", "colora-blocks2-5", "colora-blocks2-5-merge-reset"]
        skip = [("bitfit", 0), ("bitfit", 1), ("head-only", 1)]
        results = write_results(where, methods, monkeypatch, skip=skip)
        build(results, where / "report" / "fake")
        return results, where / "report" / "fake"


@pytest.fixture
def quick_figures(monkeypatch):
    """Drawing without encoding, which takes most of the time: the files are there but show nothing."""

    def save(figure, stem):
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".svg", ".pdf", ".png"):
            stem.with_suffix(suffix).write_text('<svg viewBox="0 0 8 4"/>')
        plt.close(figure)

    monkeypatch.setattr(style, "save", save)


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_figures_are_there_in_three_formats(built):
    _, out = built
    assert sorted(path.name for path in (out / "figures").iterdir()) == sorted(
        f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png", "svg")
    )
    for name in FIGURES:
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert image.width == 1600 and np.asarray(image.convert("L")).std() > 5
        ElementTree.parse(out / "figures" / f"{name}.svg")
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_report_is_the_same_at_every_build(built, tmp_path):
    results, out = built
    build(results, tmp_path / "again")
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes(), path.name


def test_main_table_holds_the_summary(built):
    results, out = built
    summary = json.loads((results / "summary.json").read_text())
    raw = {row["method"]: row for row in read_rows(out / "tables" / "main.csv")}
    assert set(raw) == set(summary)
    for method, own in summary.items():
        for name in ("acc_mean", "acc_lo", "acc_hi", "auc_mean", "epoch_s", "trainable", "total"):
            assert (
                raw[method][name] == ""
                if own[name] is None
                else float(raw[method][name]) == pytest.approx(own[name], rel=1e-5)
            )
    lines = (out / "tables" / "main.md").read_text().splitlines()
    own = summary["colora-blocks2-5"]
    (line,) = [line for line in lines if line.startswith("| colora-blocks2-5 |")]
    assert "2,540,292 | 15,583,812" in line
    assert f"{own['acc_mean']:.3f} ± {own['acc_sd']:.3f} | [{own['acc_lo']:.3f}, {own['acc_hi']:.3f}]" in line
    assert len({line.count(" | ") for line in lines if line.startswith("|")}) == 1


def test_recall_is_the_diagonal_over_the_row(built):
    results, out = built
    counts = pd.read_csv(results / "confusion.csv").query("method == 'full' and true == 'dme'")
    hits = counts.set_index("predicted")["count"]["dme"]
    rows = {row["method"]: row for row in read_rows(out / "tables" / "recall.csv")}
    assert float(rows["full"]["dme"]) == pytest.approx(hits / counts["count"].sum(), rel=1e-5)
    assert rows["bitfit"]["dme"] == ""


def test_holes_are_seen(built):
    results, out = built
    assert load(results).methods.shown.tolist() == [
        "full", "transfer (1/2)", "bitfit (0/2)", "colora-blocks2-5", "colora-blocks2-5-merge-reset",
    ]  # fmt: skip
    assert [(row["method"], row["seed"]) for row in read_rows(out / "tables" / "holes.csv")] == [
        ("head-only", "1"), ("bitfit", "0"), ("bitfit", "1"),
    ]  # fmt: skip
    page = (out / "README.md").read_text()
    assert "**3 of 10 runs have no result**" in page
    assert re.search(r"^\| bitfit \| vgg16 \| pretrained \| — \| — \| — \| 0 of 2 \| — \|", page, re.MULTILINE)
    figure = figures.accuracy(load(results))
    assert [text.get_text() for text in figure.axes[0].texts].count("no result") == 1
    plt.close(figure)


def test_page_links_to_files_that_are_there(built):
    results, out = built
    page = (out / "README.md").read_text()
    targets = re.findall(r"\]\((?!#)([^)]+)\)", page)
    assert len(targets) > 20
    (results / "data" / "examples.png").touch()
    assert [t for t in targets if not (out / t).exists()] == []


def test_page_says_what_the_data_are(built, tmp_path, monkeypatch, quick_figures):
    assert "not OCTMNIST" in (built[1] / "README.md").read_text()
    assert "(600 training images)" in (built[1] / "README.md").read_text()
    results = write_results(tmp_path, ["head-only"], monkeypatch, source="phantom", seeds=(0,))
    page = build(results, tmp_path / "out").read_text()
    assert "say nothing about real OCT images" in page
    assert "a patient may have several" not in page and "The data name no patients: images count as drawn" in page
    assert "counts adapter branches before they are merged" in page
    assert (
        "± " not in page.split("## Beside the paper")[0].split("| transfer |")[1].split("\n")[0]
    )  # one seed: no deviation


def test_findings_choose_the_colora_method_on_validation(built):
    results = load(built[0])
    val = results.complete.groupby("method").val_acc.mean()
    chosen = max(["colora-blocks2-5", "colora-blocks2-5-merge-reset"], key=lambda method: val[method])
    page = (built[1] / "README.md").read_text()
    assert f"best validation accuracy on vgg16, `{chosen}`" in page
    row = results.comparisons[(results.comparisons.method == chosen) & (results.comparisons.against == "full")].iloc[0]
    sign = "+" if row.difference > 0 else "\N{MINUS SIGN}"
    assert f"Against `full` the difference is {sign}{abs(row.difference):.3f}" in page


def compared(difference=0.02, p=0.2, swap=0.2, equivalent=False, seeds=5):
    return pd.Series({
        "reference": "full", "difference": difference, "lo": difference - 0.01, "hi": difference + 0.01, "seeds": seeds,
        "p_holm": p, "p_swap_holm": swap, "equivalent": equivalent, "margin": 0.01,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("row", "word", "sentence"),
    [
        (compared(p=0.01, swap=0.001), "higher", "+0.020 [+0.010, +0.030], Holm's p 0.010: higher."),
        (compared(-0.02, p=0.0001, swap=0.0001), "lower", "Holm's p <0.001: lower."),
        (compared(p=0.01, swap=0.06), "undecided", "p 0.060: undecided, neither a difference nor equivalence within 1"),
        (compared(p=0.06, swap=0.01), "undecided", "within 1 percentage point is shown."),
        (compared(equivalent=True), "equivalent", ": equivalent, within 1 percentage point."),
        (compared(0.004, 0.01, 0.01, True), "higher, within the margin", ": higher, though by less than 1 percentage"),
        (compared(p=0.01, swap=0.01, seeds=1), "undecided", "undecided"),
        (compared(np.nan), "\N{EM DASH}", None),
    ],
)
def test_verdicts_are_computed(row, word, sentence):
    assert comparisons.verdict(row) == word
    assert sentence is None or sentence in comparisons.sentence(row)


def test_comparisons_are_told_with_their_verdicts(built):
    results, out = built
    found = load(results)
    shown = {(r["method"], r["reference"]): r for r in read_rows(results / "comparisons.csv")}
    lines = (out / "tables" / "comparisons.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| colora-blocks2-5 | full |")]
    raw = shown["colora-blocks2-5", "full"]
    row = next(found.comparisons.query("method == 'colora-blocks2-5' and reference == 'full'").itertuples())
    assert f"| {tables.signed(float(raw['difference']))} | [" in line and comparisons.verdict(row) in line
    assert f"| {comparisons.p_text(max(float(raw['p_holm']), float(raw['p_swap_holm'])))} |" in line
    assert any(line.startswith("| bitfit | full | — | — |") for line in lines)
    page = (out / "README.md").read_text()
    counted = len(found.comparisons.query("against == 'full'").difference.dropna())
    assert f"Test accuracy against full fine-tuning, {counted} methods: " in page


def test_patients_are_told_where_they_are_known(built, tmp_path):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    assert "images count as drawn independently" in tables.main(load(results)).note.lower()
    runs = pd.read_csv(results / "runs.csv")
    runs.assign(n_test_patients=30).to_csv(results / "runs.csv", index=False)
    found = load(results)
    assert "Patients are drawn with all of their images (633 in all)" in tables.main(found).note
    assert "new patients" in comparisons.comparisons(found).note


def test_intervals_narrow_by_luck_are_named(built, tmp_path):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    summary = json.loads((results / "summary.json").read_text())
    assert "by luck" not in tables.main(load(results)).note
    own = summary["full"]
    own["acc_lo"], own["acc_hi"] = own["acc_mean"] - 0.001, own["acc_mean"] + 0.001
    (results / "summary.json").write_text(json.dumps(summary))
    assert tables.main(load(results)).note.endswith("1.96 standard errors each way, for full.")


def test_cliques_are_the_longest_runs_within_the_distance():
    assert ranks.cliques(np.array([1.0, 2.0, 3.5, 6.0]), 2.5) == [(0, 2), (2, 3)]
    assert ranks.cliques(np.array([1.0, 2.0, 3.0]), 5.0) == [(0, 2)]
    assert ranks.cliques(np.array([1.0, 4.0, 8.0]), 2.0) == []


def test_ranks_are_drawn_with_the_methods_that_have_them(built):
    found = load(built[0])
    with plt.rc_context(style.RC):
        figure = ranks.critical_difference(found)
    texts = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    whole = found.ranks.dropna(subset="mean_rank")
    for row in whole.itertuples():
        assert sum(row.method in text.split() and f"{row.mean_rank:.2f}" in text.split() for text in texts) == 1
    assert any(text.startswith(f"critical difference {whole.cd.iloc[0]:.2f}") for text in texts)
    assert not any("bitfit" in text for text in texts)
    told = ranks.caption(found)
    assert told.endswith("No rank, since a seed is missing: transfer, bitfit.") and "Friedman" in told


def test_tables_and_figures_without_content_are_removed(tmp_path, monkeypatch, quick_figures):
    results = write_results(tmp_path, ["full", "head-only"], monkeypatch, skip=[("full", 1)])
    build(results, tmp_path / "out")
    assert (tmp_path / "out" / "tables" / "holes.md").exists()
    shutil.rmtree(results)
    results = write_results(tmp_path, ["colora-blocks2-5-merge-reset"], monkeypatch)
    page = build(results, tmp_path / "out").read_text()
    left = {path.stem for path in (tmp_path / "out").rglob("*.*")}
    assert "holes" not in left and "beside_paper" not in left  # the paper has no figure for that method
    assert "Beside the paper" not in page


def test_no_result_at_all_still_makes_a_report(tmp_path, monkeypatch, quick_figures):
    results = write_results(tmp_path, ["full"], monkeypatch, seeds=(0,), skip=[("full", 0)])
    page = build(results, tmp_path / "out").read_text()
    assert "No method has a result yet" in page and "1 of 1 runs have no result" in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", None, "no such file; run `python -m pipelines.summarise` first"),
        ("summary.json", "{", "not readable as JSON"),
        ("summary.json", "{}", "not empty"),
        ("runs.csv", None, "no such file"),
        ("runs.csv", "method,seed\nfull,0\n", "columns status, family"),
        ("runs.csv", "", "not readable as CSV"),
        ("comparisons.csv", None, "no such file"),
        ("data/card.json", "[", "run `python -m pipelines.prepare` again"),
    ],
)
def test_result_files_that_cannot_be_used(built, tmp_path, name, content, message):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    (results / name).unlink() if content is None else (results / name).write_text(content)
    with pytest.raises(ReportError, match=message) as caught:
        load(results)
    assert name.split("/")[-1] in str(caught.value)


def test_methods_of_summary_and_runs_must_agree(built, tmp_path):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    summary = json.loads((results / "summary.json").read_text())
    (results / "summary.json").write_text(json.dumps({**summary, "vit": summary["full"]}))
    with pytest.raises(ReportError, match="vit not in both"):
        load(results)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--profile", "absent"]) == 1
    assert capsys.readouterr().err.startswith("error: results/absent/summary.json: no such file")
    assert main([]) == 1
    assert "params.yaml" in capsys.readouterr().err


def test_markdown_keeps_a_bar_in_its_run():
    text = pd.DataFrame({"A": ["x|y"], "B": ["<b>"]})
    assert tables.markdown(tables.Table("t", "", "", text, text)).splitlines() == [
        "| A | B |", "| --- | ---: |", "| x\\|y | &lt;b&gt; |",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+0.012"), (-0.5, "\N{MINUS SIGN}0.500"), (0.0001, "0.000"), (-0.0001, "0.000")]
)
def test_differences_have_a_sign(value, text):
    assert tables.signed(value) == text


@pytest.mark.parametrize(("values", "text"), [([5, 5], "5"), ([3, 0, 5], "3–5"), ([97477], "97,477"), ([np.nan], "no")])
def test_span(values, text):
    assert span(values) == text


def test_weights_are_named(built, tmp_path):
    text = (built[1] / "README.md").read_text()
    assert " Weights: `imagenet`." in text.split("\n- ")[0] and "| Weights | imagenet |" in text
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    runs = pd.read_csv(results / "runs.csv")
    own = runs.method == "head-only"
    sha = "a10f5da3f42bfbd5" + 48 * "0"
    runs = runs.assign(weights_sha256=np.where(own, sha, None), weights=np.where(own, "w.safetensors", "imagenet"))
    runs.to_csv(results / "runs.csv", index=False)
    found = load(results)
    assert about_data(found).endswith(" Weights: `imagenet`, `w.safetensors` (transfer).")
    line = "| Weights | imagenet (6 runs); w.safetensors (sha256 a10f5da3f42b) (1 run) |"
    assert line in provenance(found).splitlines()


def test_cost_shows_the_range_over_seeds(built):
    results, out = built
    seconds = load(results).complete.query("method == 'full'").epoch_s.sort_values().tolist()
    (row,) = [row for row in read_rows(out / "tables" / "cost.csv") if row["method"] == "full"]
    stated = [float(row[name]) for name in ("epoch_s_min", "epoch_s", "epoch_s_max", "epoch_relative")]
    assert stated == pytest.approx([seconds[0], sum(seconds) / 2, seconds[1], 1], rel=1e-5)
    text = (out / "README.md").read_text()
    assert f"| {sum(seconds) / 2:.0f} | {seconds[0]:.0f} to {seconds[1]:.0f} | 1.00 |" in text
    assert text.count("look at the spread between seeds before comparing methods") == 2  # under figure and table
    section = text.split("## Cost of training")[1].split("\n## ")[0]
    assert "emory" not in section and "times as long" not in section


def test_folds_qualify_the_intervals(built):
    assert "a patient may have several (here 1,000 images of 633)" in (built[1] / "README.md").read_text()


def test_counterparts_prefer_the_backbone(built, tmp_path):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    found = counterparts(load(results))
    assert sorted(found[found.method == "head-only"].accuracy) == [0.894, 0.916, 0.933]  # the paper's three for VGG16
    assert "colora-blocks2-5-merge-reset" not in set(found.method)
    runs = (results / "runs.csv").read_text()
    (results / "runs.csv").write_text(runs.replace("vgg16", "resnet50"))
    found = counterparts(load(results))
    assert found[found.method == "head-only"].accuracy.tolist() == [0.903]
    assert "resnet50" in tables.comparability(load(results))


def test_vits_do_not_stand_beside_cnns(tmp_path, monkeypatch):
    params = fake.params(["full", "head-only"], seeds=(0,))
    monkeypatch.chdir(tmp_path)
    fake.write_profile(params)
    summarise(params)
    runs = (params.results_dir / "runs.csv").read_text()
    (params.results_dir / "runs.csv").write_text(runs.replace("vgg16", "smallvit"))
    assert counterparts(load(params.results_dir)).empty


def test_paper_figures_are_those_given():
    given = ROOT.parent / "shared" / "reference" / "paper_results.csv"
    if not given.is_file():
        pytest.skip(f"{given.name} is not beside this checkout")
    theirs, ours = pd.read_csv(given), pd.read_csv(ROOT / "report" / "paper.csv")
    for old, new in (("acc", "accuracy"), ("acc_sd", "accuracy_sd"), ("auc", "auc"), ("memory_gib", "memory_gib"),
                     ("epoch_min", "epoch_min"), ("trainable_m", "trainable_m")):  # fmt: skip
        stated = theirs[["backbone", "method", old]].dropna()
        stated["method"] = stated.method.str.replace(r"-a\d+$", "", regex=True)
        # By its count, what they call pointwise-only is depthwise-only.
        stated["method"] = stated.method.str.replace("pointwise-only", "depthwise-only")
        restated = ours[["backbone", "method", new]].dropna()
        # Our methods are named after these networks' sizes and resolutions.
        restated["method"] = restated.method.replace(r"^medmnist-.*", "medmnist-baseline", regex=True)
        restated["method"] = restated.method.replace(r"^(medmamba|medkan)-.$", r"\1", regex=True)
        assert sorted(map(tuple, stated.to_numpy())) == sorted(map(tuple, restated.to_numpy())), old


@pytest.mark.parametrize(
    ("template", "file", "x", "y"),
    [("learning_curves", "curves.csv", "epoch", "val_acc"), ("methods", "runs.csv", "test_acc", "method")],
)
def test_dvc_templates_fill(built, template, file, x, y):
    from dvc_render.vega import VegaRenderer

    points = [{**row, "rev": "workspace"} for row in read_rows(built[0] / file)]
    renderer = VegaRenderer(points, "plot", template=str(ROOT / ".dvc" / "plots" / f"{template}.json"), x=x, y=y)
    filled = renderer.get_filled_template()
    assert filled["data"]["values"] == points
    assert "<DVC_METRIC" not in json.dumps(filled)
    assert f"datum['{y if template == 'learning_curves' else x}']" in json.dumps(filled)
