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
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from report import html, overview, page, style, tables
from tests import fake_page as fake

ROOT = Path(__file__).parents[1]
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Ordinary names: (results, tables, folder, tree, source)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        results, written, out = fake.write(tmp_path_factory.mktemp("page"), monkeypatch)
        source = (out / "index.html").read_text(encoding="utf-8")
        return results, written, out, Tree(source).root, source


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The same over names from data that try to break out."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        results, written, out = fake.write(tmp_path_factory.mktemp("hostile"), monkeypatch, fake.HOSTILE)
        source = (out / "index.html").read_text(encoding="utf-8")
        return results, written, out, Tree(source).root, source


@pytest.fixture(params=["built", "hostile"])
def either(request):
    return request.getfixturevalue(request.param)


def test_every_reference_has_its_target_once(either):
    *_, root, _ = either
    ids = Counter(e.attributes["id"] for e in root.all() if "id" in e.attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    wanted = {e.attributes["href"][1:] for e in root.all("a") if e.attributes["href"].startswith("#")}
    wanted |= {e.attributes[name] for e in root.all() for name in ("aria-labelledby", "for") if name in e.attributes}
    assert wanted <= set(ids)
    assert "records-3" in wanted  # a method's records are reached from its name


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
    body = root.all("body")[0]
    assert body.children[0].attributes["href"] == "#main"  # the skip link comes first
    for image in root.all("img"):
        assert "alt" in image.attributes
    for section in root.all("section"):
        assert root.one(section.attributes["aria-labelledby"]).text
    for table in root.all("table"):
        assert table.children[0].tag == "caption" and table.children[0].text.strip()
        assert all(th.attributes.get("scope") in ("col", "row") for th in table.all("th"))
        box = table.parent
        assert "scroll" in box.classes and box.attributes["tabindex"] == "0"


def cell_text(cell):
    """What is seen: words for screen readers left out."""
    return "".join(
        piece if isinstance(piece, str) else "" if "hidden-text" in piece.classes else cell_text(piece)
        for piece in cell.pieces
    )


def test_every_table_is_there_with_every_cell(either):
    _, written, _, root, _ = either
    assert {"main", "comparisons", "recall", "class_scores", "stability", "holes"} <= set(written)
    for name, table in written.items():
        shown = root.one(f"table-{name}")
        heads = [th.text for th in shown.all("thead")[0].all("th")]
        assert heads == [str(column) for column in table.text.columns]
        rows = [[cell_text(c) for c in tr.children] for tr in shown.all("tbody")[0].children]
        plain = [[re.sub(r"`([^`]+)`", r"\1", str(v)) for v in row] for row in table.text.itertuples(index=False)]
        assert rows == plain


def test_holes_are_seen_as_holes(built):
    results, written, _, root, _ = built
    assert f"{len(fake.SKIPPED)} of {len(fake.METHODS) * 3} cells have no result" in root.one("summary").text
    (row,) = [r for r in root.one("table-glance").all("tbody")[0].children if "bitfit" in r.text]
    assert "no result" in row.text and not row.all("circle")
    assert [c.text for c in row.children if "missing" in c.classes] == ["—"] * 3
    rows = root.one("table-main").all("tbody")[0].children
    (row,) = [r for r in rows if r.children[0].text == "bitfit"]
    accuracy = row.children[list(written["main"].text.columns).index("Accuracy")]
    assert "missing" in accuracy.classes and "data-sort" not in accuracy.attributes
    assert "no value" in accuracy.text
    records = [r.children for r in root.one("table-records").all("tbody")[0].children]
    assert len(records) == len(results.runs)
    missing = {(r[0].text, int(r[1].text)) for r in records if r[2].text != "complete"}
    assert missing == set(fake.SKIPPED)
    number = list(results.methods.index).index("bitfit")
    (chip,) = [e for e in root.all("input") if e.attributes.get("value") == str(number)]
    assert "disabled" in chip.attributes and "checked" not in chip.attributes
    curves = json.loads(root.one("curve-data").text)
    assert curves["methods"][number]["lines"] is None


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
        assert re.match(r"#|data:", element.attributes.get("href") or "#"), element.attributes
    assert not {"iframe", "object", "embed", "base", "form", "b"} & {e.tag for e in root.all()}
    assert "@import" not in source and not re.search(r"url\(\s*['\"]?(?!data:|#)", root.all("style")[0].text)


def test_names_from_data_are_text(built, hostile):
    plain, root = built[3], hostile[3]

    def count(tree):
        return {tag: len(tree.all(tag)) for tag in ("script", "style", "img", "svg", "button", "section", "table")}

    # The same results under other names: nothing in a name became an element.
    assert count(root) == count(plain)
    assert {e.tag for e in root.all()} <= {e.tag for e in plain.all()}
    heads = [r.children[0].text for r in root.one("table-glance").all("tbody")[0].children]
    assert {fake.HOSTILE[method] for method in ("colora-blocks2-5", "medmamba", "vit-lora")} <= set(heads)
    names = [method["name"] for method in json.loads(root.one("curve-data").text)["methods"]]
    assert names == heads
    assert fake.FAILURE in [td.text for td in root.one("table-holes").all("td")]
    assert fake.HOSTILE["drusen"] in [th.text for th in root.one("table-recall").all("th")]
    assert "49" not in root.one("table-glance").text.split()  # {{ 7 * 7 }} was not computed


def test_the_card_brings_its_own_pictures_only(built):
    *_, root, _ = built
    card = root.one("data-card")
    assert '<iframe src="https://example.org"></iframe>' in card.text and "javascript:" in card.text
    examples, stolen = card.all("img")
    results = built[0]
    content = (results.directory / "data" / "examples.png").read_bytes()
    assert base64.b64decode(examples.attributes["src"].split(",")[1]) == content
    assert stolen.attributes["src"] == "data:,"
    assert [th.attributes.get("class") for th in card.all("th")] == [None, "number"]


def test_downloads_hold_the_files(built):
    results, written, out, root, _ = built
    links = {a.attributes["download"]: a.attributes["href"] for a in root.all("a") if a.attributes.get("download")}
    assert set(links) == {f"{name}.{kind}" for name in written for kind in ("csv", "tex")} | {"records.csv"}
    for name, href in links.items():
        if name != "records.csv":
            content = unquote(href.split(",", 1)[1]).encode()
            assert content == (out / "tables" / name).read_bytes()
    records = pd.read_csv(StringIO(unquote(links["records.csv"].split(",", 1)[1])))
    cells = zip(results.runs.method, results.runs.seed, strict=True)
    assert list(records.record) == [f"results/fake/runs/{method}/{seed}/record.json" for method, seed in cells]


def test_same_results_same_bytes_and_no_torch(built):
    """In a process with other hash seeds, so that no order of a set leaks."""
    *_, out, _, source = built
    code = (
        "import sys; from pathlib import Path; from report import html, tables; from report.results import load\n"
        f"r = load(Path({str(built[0].directory)!r})); out = Path({str(out)!r})\n"
        f"page = html.render(r, tables.write_all(r, out / 'tables'), {list(fake.FIGURES)!r}, out)\n"
        "assert 'torch' not in sys.modules; sys.stdout.buffer.write(page.encode())"
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
    assert html.sort_value(text) == value


def test_infinity_is_written_as_javascript_reads_it():
    assert html._cell("\N{INFINITY}", True).sort == "Infinity"
    assert html._cell("\N{INFINITY}", False).sort is None


def test_less_than_sorts_before_what_it_is_less_than():
    assert 0 < html.sort_value("<0.001") < html.sort_value("0.001")


def test_sort_values_follow_the_numbers_they_are_written_from():
    rng = np.random.default_rng(0)
    for value in 10 ** rng.uniform(-4, 12, 200):
        assert html.sort_value(style.scaled(value)) == pytest.approx(value, rel=0.006)
        assert html.sort_value(tables.count(value)) == int(value)
    for value in rng.normal(0, 0.3, 200):
        assert html.sort_value(tables.signed(value)) == pytest.approx(value, abs=5.1e-4)
        assert html.sort_value(tables.interval(value, 2.0, plus=True)) == pytest.approx(value, abs=5.1e-4)


def test_columns_sort_by_the_raw_numbers(built):
    _, written, _, root, _ = built
    table = written["main"]
    place = list(table.text.columns).index("Trained")
    shown = [tr.children[place].attributes.get("data-sort") for tr in root.one("table-main").all("tbody")[0].children]
    expected = [None if pd.isna(v) else float(v) for v in table.raw.trainable]
    assert [v and float(v) for v in shown] == expected and None in expected


def test_lean_svg_draws_the_same(built):
    svg = (built[2] / "figures" / "accuracy.svg").read_text()
    lean = html.lean_svg(svg)
    assert len(lean) < 0.9 * len(svg)
    before, after = (
        [e for e in ElementTree.fromstring(s).iter() if "svg}" in e.tag and not e.tag.endswith("metadata")]
        for s in (svg, lean)
    )
    number = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
    assert [e.tag for e in before] == [e.tag for e in after]
    for old, new in zip(before, after, strict=True):
        assert list(old.attrib) == list(new.attrib)
        for name, value in old.attrib.items():
            assert number.sub("", " ".join(value.split())) == number.sub("", " ".join(new.attrib[name].split()))
            pairs = zip(number.findall(value), number.findall(new.attrib[name]), strict=True)
            assert all(abs(float(a) - float(b)) <= 0.00501 for a, b in pairs)


def test_curves_are_mean_and_range_and_leave_gaps(built):
    results = built[0]
    gone = results.curves[(results.curves.method == "full") & (results.curves.seed == 1) & (results.curves.epoch == 4)]
    curves = overview.curves(replace(results, curves=results.curves.drop(gone.index)))
    method = curves["methods"][list(results.methods.index).index("full")]
    mean, low, high = method["lines"]["val_acc"]
    own = results.curves[results.curves.method == "full"]
    for place, epoch in enumerate(curves["epochs"]):
        values = own[own.epoch == epoch].val_acc.to_numpy()
        if epoch == 4:
            assert mean[place] is low[place] is high[place] is None
        else:
            expected = [sum(values) / 3, min(values), max(values)]
            assert [mean[place], low[place], high[place]] == pytest.approx(expected, rel=1e-4)
    assert method["first"] and method["seeds"] == 3
    same = [a["dash"] for a in curves["methods"] if a["name"].startswith("colora")]
    assert len(set(same)) == len(same) == 2  # of one family, so of one colour


def test_positions_at_a_glance(built):
    """Per cent of an axis: linear in the accuracies, all within it, and the ticks on the same scale."""
    results = built[0]
    glance = overview.glance(results)
    rows = {row["name"]: row for row in glance["rows"]}
    points = [(v, rows[method][k]) for method, row in results.methods.iterrows() if row.seeds == 3
              for k, v in (("lo", row.acc_lo), ("mean", row.acc_mean), ("hi", row.acc_hi))]  # fmt: skip
    points += [(float(tick["text"]), tick["at"]) for tick in glance["ticks"]]
    values, places = np.array(points).T
    slope, offset = np.polyfit(values, places, 1)
    assert places == pytest.approx(slope * values + offset, abs=0.02) and slope > 0
    assert places.min() >= 0 and places.max() <= 100 and len(glance["ticks"]) > 1


def test_bundled_files_are_those_stated():
    stated = dict(re.findall(r"\| `(.+?)` \| `([0-9a-f]{64})` \|", (html.ASSETS / "README.md").read_text()))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in html.ASSETS.glob("uPlot*")}
    assert stated == found and len(found) == 3


@pytest.mark.parametrize("color", [c for family in style.GROUPS.values() for c in family.values()] + list(style.SPARE))
def test_colors_stand_out_in_the_dark(color):
    def luminance(rgb):  # WCAG 2.2, relative luminance
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = re.search(r"--ground: light-dark\(#\w+, (#\w+)\)", (html.WEB / "page.css").read_text())[1]
    assert ground == overview.DARK
    assert (luminance(to_rgb(overview.dark(color))) + 0.05) / (luminance(to_rgb(ground)) + 0.05) >= 4.5


@pytest.mark.parametrize("names, text", [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")])
def test_names_are_listed(names, text):
    assert overview._listed(names, "or") == text


def test_headline_follows_the_verdicts(built):
    results = built[0]
    method = page.chosen_colora(results)

    def told(full, transfer):
        pairs = results.comparisons.copy()
        for family, (difference, p, equivalent) in {"full": full, "head-only": transfer}.items():
            own = (pairs.method == method) & (pairs.against == family)
            pairs.loc[own, ["difference", "p_holm", "p_swap_holm"]] = [difference, p, p]
            pairs.loc[own, "equivalent"] = equivalent
        return overview.headline(replace(results, comparisons=pairs))

    assert "less accurate than full fine-tuning and more accurate than training the head alone" in told(
        (-0.05, 0.01, False), (0.05, 0.01, False)
    )
    assert "not shown to differ in accuracy from full fine-tuning, training the head alone or vit-lora" in told(
        (-0.05, 0.3, False), (0.05, 0.3, False)
    )
    assert "as accurate as full fine-tuning, within 1 percentage point" in told((0.001, 0.3, True), (0.05, 0.01, False))
    row = results.methods.loc[method]
    assert f"trains {100 * row.trainable / row.total:.1f} % of the parameters" in overview.headline(results)


def test_without_any_result_the_page_says_so(built):
    results = built[0]
    cells = results.runs.assign(status="missing")
    numbers = results.methods.select_dtypes("float").columns
    methods = results.methods.assign(seeds=0, **dict.fromkeys(numbers, np.nan))
    empty = replace(
        results, cells=cells, methods=methods, curves=results.curves.iloc[:0], confusion=results.confusion.iloc[:0],
        comparisons=results.comparisons.iloc[:0], tuning=results.tuning.iloc[:0],
    )  # fmt: skip
    assert overview.headline(empty) == "No method has a result yet."
    assert overview.tiles(empty) == [] and overview.curves(empty) is None
    assert {row["mean"] for row in overview.glance(empty)["rows"]} == {None}
    assert Tree(html.render(empty, {}, [], built[2])).root.all("main")
