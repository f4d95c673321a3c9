"""index.html: well formed, complete, escaped, closed to the outside, the same for the same results."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from report import drawing, pages
from report.pages import cells, charts, html
from report.text import interval, number, scaled, signed
from tests.report import made
from tests.report import page as fake

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children, self.pieces = tag, attributes, parent, [], []

    def all(self, tag=None):
        found = [self] if tag in (None, self.tag) else []
        return found + [inner for child in self.children for inner in child.all(tag)]

    def one(self, identity):
        (found,) = [e for e in self.all() if e.attributes.get("id") == identity]
        return found

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    @property
    def text(self):
        return "".join(piece if isinstance(piece, str) else piece.text for piece in self.pieces)


class Tree(HTMLParser):
    """A strict reader: every element that is no void one must be closed, innermost first."""

    def __init__(self, source):
        super().__init__()
        self.root = self.here = Element("document", {}, None)
        self.feed(source)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is not closed"

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attributes), self.here)
        self.here.children.append(element)
        self.here.pieces.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> where <{self.here.tag}> is open"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.pieces.append(data)


def built_page(folder, rename=None):
    results = fake.results(folder, rename)
    source = fake.render(results, folder / "figures")
    return results, fake.sections(results), Tree(source).root, source


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Ordinary names: (results, sections, tree, source)."""
    return built_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The same over names from data that try to break out."""
    return built_page(tmp_path_factory.mktemp("hostile"), fake.HOSTILE)


@pytest.fixture(params=["built", "hostile"])
def either(request):
    return request.getfixturevalue(request.param)


def test_every_reference_has_its_target_once(either):
    *_, root, _ = either
    ids = Counter(e.attributes["id"] for e in root.all() if "id" in e.attributes)
    assert [name for name, number in ids.items() if number > 1] == []
    wanted = {e.attributes["href"][1:] for e in root.all("a") if e.attributes["href"].startswith("#")}
    wanted |= {e.attributes[name] for e in root.all() for name in ("aria-labelledby", "for") if name in e.attributes}
    assert wanted <= set(ids)
    assert "records-3" in wanted  # a method's runs are reached from its name


def test_headings_descend_one_level_at_a_time(either):
    *_, root, _ = either
    levels = [int(e.tag[1]) for e in root.all() if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 8
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_landmarks_language_and_names(either):
    *_, root, _ = either
    tags = Counter(e.tag for e in root.all())
    assert tags["main"] == tags["header"] == tags["footer"] == tags["nav"] == 1
    assert root.all("html")[0].attributes["lang"] == "en"
    assert root.all("body")[0].children[0].attributes["href"] == "#main"  # the skip link comes first
    for image in root.all("img"):
        assert "alt" in image.attributes
    for section in [*root.all("section"), *root.all("article")]:
        assert root.one(section.attributes["aria-labelledby"]).text
    for table in root.all("table"):
        assert table.children[0].tag == "caption" and table.children[0].text.strip()
        assert all(th.attributes.get("scope") in ("col", "row") for th in table.all("th"))
        box = table.parent
        assert "scroll" in box.classes and box.attributes["tabindex"] == "0"


def test_the_first_screen_names_method_best_and_what_was_not_run(built):
    results, _, root, _ = built
    first = root.one("answer").text
    means = results.methods.acc_mean
    assert made.METHOD in first and means.idxmax() in first and f"{100 * means.max():.1f} %" in first
    assert f"{100 * means[made.METHOD]:.1f} %" in root.all("h1")[0].text
    assert "Not run" in first and "OCTMNIST at 224 px on a GPU" in first
    assert len(root.one("answer").all("dl")[0].children) == 3
    assert "2 January 2026" in root.all("header")[0].text and made.GPU in root.all("header")[0].text
    assert any("arxiv.org/abs/2505.18315" in (a.attributes["href"] or "") for a in root.all("header")[0].all("a"))


def test_the_four_groups_stand_in_order_and_the_rest_is_folded(built):
    *_, root, _ = built
    names = [e.text.strip() for e in root.all("h2")][:-1]  # the last is the dialog's
    assert (
        names == [name for name in ("Result", "Evidence", "Cost", "Data and methods") if name in names]
        and len(names) > 2
    )
    folds = [e.attributes.get("id") for e in root.all("details") if "fold" in e.classes]
    assert folds == ["accuracy", "confusion", "records", "origin"]  # the page draws accuracies itself


def cell_text(cell):
    """What is seen: words for screen readers left out."""
    return "".join(
        piece if isinstance(piece, str) else "" if "hidden-text" in piece.classes else cell_text(piece)
        for piece in cell.pieces
    )


def test_every_table_is_there_with_every_cell(either):
    _, sections, root, _ = either
    tables = [table for section in sections for table in section.tables]
    assert {"main", "claims", "recall"} <= {table.name for table in tables}
    for table in tables:
        shown = root.one(f"table-{table.name}")
        heads = [th.text for th in shown.all("thead")[0].all("th")]
        assert heads == [str(column) for column in table.text.columns]
        rows = [[cell_text(c) for c in tr.children] for tr in shown.all("tbody")[0].children]
        plain = [[re.sub(r"`([^`]+)`", r"\1", str(v)) for v in row] for row in table.text.itertuples(index=False)]
        assert rows == plain


def test_holes_are_seen_as_holes(built):
    results, _, root, _ = built
    assert f"{len(fake.SKIPPED)} of {len(fake.METHODS) * 3} runs of this profile" in root.one("answer").text
    rows = root.one("table-methods").all("tbody")[0].children
    assert "bitfit" not in [row.children[0].text for row in rows] and "Not run yet: bitfit" in root.text
    rows = root.one("table-main").all("tbody")[0].children
    (row,) = [r for r in rows if r.children[0].text == "bitfit"]
    assert all("missing" in c.classes and "data-sort" not in c.attributes for c in row.children[1:])
    assert "no value" in row.text
    records = [r.children for r in root.one("table-records").all("tbody")[0].children]
    assert {(r[0].text, int(r[1].text)) for r in records if r[2].text != "complete"} == set(fake.SKIPPED)
    number = list(results.methods.index).index("bitfit")
    assert number not in [method["number"] for method in json.loads(root.one("curve-data").text)["methods"]]
    boxes = [e.attributes for e in root.all("input") if e.attributes["type"] == "checkbox"]
    assert str(number) not in [box.get("value") for box in boxes]


def test_nothing_is_loaded_and_only_our_code_runs(either):
    *_, root, source = either
    (policy,) = [e.attributes["content"] for e in root.all("meta") if "http-equiv" in e.attributes]
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert not re.search(r"unsafe|http|\*", policy)

    def digest(element):
        return f"'sha256-{base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()}'"

    code = [e for e in root.all("script") if e.attributes.get("type") != "application/json"]
    assert len(code) == 3 and [digest(e) for e in code] == rules["script-src"].split()
    assert [digest(e) for e in root.all("style")] == rules["style-src"].split()
    for element in root.all():
        names = set(element.attributes)
        assert not names & {"style", "srcset", "srcdoc", "action", "formaction", "ping"}
        assert not [name for name in names if name.startswith("on")]
        assert element.attributes.get("src", "data:").startswith("data:")
        assert re.match(r"#|data:|https://arxiv", element.attributes.get("href") or "#"), element.attributes
    assert not {"iframe", "object", "embed", "base", "form", "b"} & {e.tag for e in root.all()}
    assert "@import" not in source and not re.search(r"url\(\s*['\"]?(?!data:|#)", root.all("style")[0].text)


def test_a_figure_is_there_once_in_one_format(built):
    *_, root, source = built
    figures = [e for e in root.all("img") if e.parent.tag == "button"]
    assert (
        len(figures) == 1 and source.count("data:image/svg+xml") + source.count("data:image/png") == 2
    )  # and the card's
    assert "application/x-tex" not in source


def test_names_from_data_are_text(built, hostile):
    plain, root = built[2], hostile[2]

    def counted(tree):
        return {tag: len(tree.all(tag)) for tag in ("script", "style", "img", "svg", "button", "section", "table")}

    # The same results under other names: nothing in a name became an element.
    assert counted(root) == counted(plain)
    assert {e.tag for e in root.all()} <= {e.tag for e in plain.all()}
    heads = [r.children[0].text for r in root.one("table-methods").all("tbody")[0].children]
    assert {fake.HOSTILE[method] for method in ("colora-block5", "medmamba", "vit-full")} <= set(heads)
    names = [method["name"] for method in json.loads(root.one("curve-data").text)["methods"]]
    assert sorted(names) == sorted(heads)
    assert fake.FAILURE in [td.text for td in root.one("table-records").all("td")]
    assert fake.HOSTILE["drusen"] in [th.text for th in root.one("table-recall").all("th")]
    assert "49" not in root.one("table-methods").text.split()  # {{ 7 * 7 }} was not computed


def test_the_card_brings_its_own_pictures_only(built):
    results, _, root, _ = built
    card = root.one("origin")
    assert '<iframe src="https://example.org"></iframe>' in card.text and "javascript:" in card.text
    examples, stolen = card.all("img")
    content = (results.directory / "data" / "examples.png").read_bytes()
    assert base64.b64decode(examples.attributes["src"].split(",")[1]) == content
    assert stolen.attributes["src"] == "data:,"
    assert [th.attributes.get("class") for th in card.all("table")[-1].all("th")] == [None, "number"]


def test_downloads_hold_the_numbers(built):
    results, sections, root, _ = built
    links = {a.attributes["download"]: a.attributes["href"] for a in root.all("a") if a.attributes.get("download")}
    tables = {f"{table.name}.csv": table for section in sections for table in section.tables}
    assert set(links) == {*tables, "records.csv"}
    for name, table in tables.items():
        assert unquote(links[name].split(",", 1)[1]) == table.csv()
    records = pd.read_csv(StringIO(unquote(links["records.csv"].split(",", 1)[1])))
    runs = zip(results.runs.method, results.runs.seed, strict=True)
    assert list(records.record) == [f"results/fake/runs/{method}/{seed}/record.json" for method, seed in runs]


def test_methods_are_sorted_by_accuracy_and_can_be_filtered(built):
    results, _, root, _ = built
    rows = root.one("table-methods").all("tbody")[0].children
    shown = [row.children[3].attributes.get("data-sort") for row in rows]
    assert [float(v) for v in shown] == sorted(map(float, shown), reverse=True)
    kinds = json.loads(root.one("method-data").text)
    for row in rows:
        family = kinds[int(row.attributes["data-method"])]["family"]
        assert family == results.methods.family[row.children[0].text.split(" (")[0]]
    options = [e.text for e in root.one("filter").all("option")]
    assert {"colora", "medmamba", "vgg16", "deit_tiny_patch16_224"} <= set(options)


def test_verdicts_sort_in_their_order():
    order = ["supported", "contradicted", "inconclusive", "not tested"]
    ranks = [int(cells.cell(word, cells.kind(order)).sort) for word in order]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == 4
    assert cells.kind(["supported", "other"]) == "text"


def test_the_forest_shows_every_declared_contrast(built):
    results, _, root, _ = built
    rows = {row.children[0].text: row for row in root.one("table-forest").all("tbody")[0].children}
    declared = results.contrasts[results.contrasts.metric == "accuracy"]
    assert set(rows) == set(declared.comparator)
    for own in declared.itertuples():
        cells_ = rows[own.comparator].children
        assert cells_[2].text == f"{100 * own.difference:+.1f}".replace("-", "\N{MINUS SIGN}")
        assert cells_[4].text == own.higher
    forest = charts.forest(results)
    ordered = declared.sort_values("difference", ascending=False)
    points = [(v, p) for own, row in zip(ordered.itertuples(), forest["rows"])
              for v, p in ((own.lo, row["lo"]), (own.difference, row["mean"]), (own.hi, row["hi"]))]  # fmt: skip
    points += [(0.0, forest["zero"]), (-0.02, forest["zone"][0]), (0.02, forest["zone"][1])]
    slope, offset = np.polyfit(*np.array(points).T, 1)
    assert not any(row["again"] for row in forest["rows"])
    assert np.array(points)[:, 1] == pytest.approx(slope * np.array(points)[:, 0] + offset, abs=0.02) and slope > 0


def test_without_declared_contrasts_there_is_no_forest(built):
    results = built[0]
    bare = replace(results, contrasts=results.contrasts.iloc[:0], paper=results.paper.iloc[:0])
    page = Tree(html.render(bare, pages.answer(bare, []), [], results.directory)).root
    assert not [e for e in page.all("table") if e.attributes.get("id") == "table-forest"]
    assert "CoLoRA benchmark" not in page.all("header")[0].text and "OCTMNIST" not in page.text


def test_same_results_same_bytes_and_no_torch(built):
    """In a process with other hash seeds, so that no order of a set leaks."""
    results, _, _, source = built
    code = (
        "import sys; from pathlib import Path; from report import pages; from tests.report import page\n"
        f"out = Path({str(results.directory)!r}); r = pages.read(out, paper=True)\n"
        "text = page.render(r, out / 'figures')\n"
        "assert 'torch' not in sys.modules; sys.stdout.buffer.write(text.encode())"
    )
    again = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "12345"}, capture_output=True
    )
    assert again.returncode == 0, again.stderr.decode()
    assert again.stdout.decode() == source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.975 ± 0.010", 0.975), ("[0.959, 0.985]", 0.959), ("1,583,620", 1583620), ("772", 772), ("1.19G", 1.19e9),
        ("92.2M", 92.2e6), ("328k", 328e3), ("\N{MINUS SIGN}0.048", -0.048), ("+0.108", 0.108), ("4 of 5", 4),
        ("3/5", 3), ("12 to 14.6", 12), ("1e-05", 1e-5), ("0.780 *", 0.78), ("12.4 %", 12.4), ("1.24×", 1.24),
        ("[\N{MINUS SIGN}0.069, \N{MINUS SIGN}0.027]", -0.069), ("\N{INFINITY}", np.inf), (".5", 0.5),
        ("74b4a8ed79ce", None), ("2026-11-24", None), ("2.13.0+cu130", None), ("resnet18", None), ("3M2", None),
    ],
)  # fmt: skip
def test_sort_value(text, value):
    assert cells.sort_value(text) == value


def test_infinity_is_written_as_javascript_reads_it():
    assert cells.cell("\N{INFINITY}", "number").sort == "Infinity"
    assert cells.cell("\N{INFINITY}", "text").sort is None


def test_less_than_sorts_before_what_it_is_less_than():
    assert 0 < cells.sort_value("<0.001") < cells.sort_value("0.001")


def test_sort_values_follow_the_numbers_they_are_written_from():
    rng = np.random.default_rng(0)
    for value in 10 ** rng.uniform(-4, 12, 200):
        assert cells.sort_value(scaled(value)) == pytest.approx(value, rel=0.006)
        assert cells.sort_value(number(int(value), ",.0f")) == int(value)
    for value in rng.normal(0, 0.3, 200):
        assert cells.sort_value(signed(value)) == pytest.approx(value, abs=5.1e-4)
        assert cells.sort_value(interval(value, 2.0, plus=True)) == pytest.approx(value, abs=5.1e-4)


def test_curves_are_mean_and_range_and_leave_gaps(built):
    results = built[0]
    gone = results.curves[(results.curves.method == "full") & (results.curves.seed == 1) & (results.curves.epoch == 2)]
    curves = charts.curves(replace(results, curves=results.curves.drop(gone.index)))
    method = curves["methods"][list(results.methods.index).index("full")]
    mean, low, high = method["lines"]["val_acc"]
    own = results.curves[results.curves.method == "full"]
    for place, epoch in enumerate(curves["epochs"]):
        values = own[own.epoch == epoch].val_acc.to_numpy()
        if epoch == 2:
            assert mean[place] is low[place] is high[place] is None
        else:
            expected = [sum(values) / 3, min(values), max(values)]
            assert [mean[place], low[place], high[place]] == pytest.approx(expected, rel=1e-4)
    assert method["first"] and method["seeds"] == 3
    same = [a["dash"] for a in curves["methods"] if a["name"].startswith("colora")]
    assert len(set(same)) == len(same) == 2  # of one kind, so of one colour


def test_positions_of_methods(built):
    """Per cent of an axis: linear in the accuracies and within it; a method far below is marked, not drawn in scale."""
    results = built[0]
    found = charts.methods(results)
    rows = {row["name"]: row for row in found["rows"]}
    assert [name for name, row in rows.items() if row["beyond"]] == ["medmamba"]
    drawn = results.methods.drop(index="medmamba")
    points = [(v, rows[method][k]) for method, row in drawn.iterrows() if row.seeds == 3
              for k, v in (("lo", row.acc_lo), ("mean", row.acc_mean), ("hi", row.acc_hi))]  # fmt: skip
    points += [(float(tick["text"]), tick["at"]) for tick in found["ticks"]]
    values, places = np.array(points).T
    slope, offset = np.polyfit(values, places, 1)
    assert places == pytest.approx(slope * values + offset, abs=0.02) and slope > 0
    assert places.min() >= 0 and places.max() <= 100 and len(found["ticks"]) > 1


def test_bundled_files_are_those_stated():
    stated = dict(re.findall(r"\| `(.+?)` \| `([0-9a-f]{64})` \|", (html.ASSETS / "README.md").read_text()))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in html.ASSETS.glob("uPlot*")}
    assert stated == found and len(found) == 3


@pytest.mark.parametrize("color", drawing.HUES.values())
def test_colors_stand_out_in_the_dark(color):
    def luminance(rgb):  # WCAG 2.2, relative luminance
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = re.search(r"--ground: light-dark\(#\w+, (#\w+)\)", (html.WEB / "page.css").read_text())[1]
    assert ground == charts.DARK
    assert (luminance(to_rgb(charts.dark(color))) + 0.05) / (luminance(to_rgb(ground)) + 0.05) >= 4.5


def test_without_any_result_the_page_says_so(built):
    results = built[0]
    runs = results.runs.assign(status="missing")
    numbers = results.methods.select_dtypes("float").columns
    methods = results.methods.assign(seeds=0, **dict.fromkeys(numbers, np.nan))
    empty = replace(
        results, runs=runs, methods=methods, curves=results.curves.iloc[:0], contrasts=results.contrasts.iloc[:0],
        cost=results.cost.iloc[:0],
    )  # fmt: skip
    found = pages.answer(empty, [])
    assert found.sentence == "No method has a result yet." and found.tiles == []
    assert charts.curves(empty) is None and charts.forest(empty) is None
    assert charts.methods(empty)["rows"] == []
    assert Tree(html.render(empty, found, [], results.directory)).root.all("main")
