"""Nothing that is read can do more than be refused: records, runs and results; nor shown, do more than be seen.

A few examples of each property; see tests/test_untrusted.py.
"""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.evidence.summary import summarise
from pipelines.files import markdown
from pipelines.files.errors import UserError
from pipelines.runs import reading
from report import reading as report_results
from report import text as tables
from report.pages.latex import latex
from tests import fake_results as fake
from tests.damage import JSON, altered, file_like


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("untrusted")


RUN = ("record.json", "predictions.npz", "curves.csv")


@pytest.fixture(scope="module")
def profile(here):
    """A profile of one method and two seeds, summarised, and what its first run and its results hold."""
    made = fake.params(["full"], seeds=(0, 1), profile="untrusted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        fake.write_profile(made, n_test=16, epochs=3)
        summarise(made)
    directory = here / made.results_dir
    (directory / "data").mkdir()
    (directory / "data" / "patients.csv").write_text("image,patient\n" + "".join(f"{i},{i // 2}\n" for i in range(16)))
    (directory / "data" / "card.json").write_text(
        json.dumps({"settings": {"source": "phantom", "medmnist": {"dataset": "octmnist"}}, "patients": 8, "count": 16})
    )
    run = {name: (here / made.run_dir("full", 0) / name).read_bytes() for name in RUN}
    files = [path for path in directory.rglob("*.*") if "runs" not in path.parts and path.name != "patients.csv"]
    return made, run, {path: path.read_bytes() for path in files}


def summarised(here, made, path: Path, content: bytes, before: bytes) -> None:
    """Nothing but the errors that name the run may come of it, nor a summary with what JSON lacks."""
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        try:
            found, _ = reading.read_runs(made)
            assert all(len(run["curves"]) == 3 and len(run["labels"]) == 16 for run in found.values())
            summary = summarise(made)
            json.loads(json.dumps(summary, allow_nan=False))
        except UserError as error:
            assert "full" in str(error) or path.name in str(error)
        finally:
            path.write_bytes(before)


@given(st.data())
def test_any_bytes_in_a_run(here, profile, data):
    made, run, _ = profile
    name = data.draw(st.sampled_from(RUN))
    path = here / made.run_dir("full", 0) / name
    summarised(here, made, path, data.draw(file_like(run[name])), run[name])


@given(st.data())
def test_any_content_as_a_record(here, profile, data):
    made, run, _ = profile
    content = json.dumps(data.draw(altered(json.loads(run["record.json"]), JSON) | JSON)).encode()
    summarised(here, made, here / made.run_dir("full", 0) / "record.json", content, run["record.json"])


@given(st.data())
def test_any_bytes_as_the_table_of_patients(here, profile, data):
    made, _, _ = profile
    path = here / made.results_dir / "data" / "patients.csv"
    before = path.read_bytes()
    summarised(here, made, path, data.draw(file_like(before)), before)


@given(st.data())
def test_any_bytes_as_results(here, profile, data):
    made, _, files = profile
    path = data.draw(st.sampled_from(sorted(files)))
    content = data.draw(file_like(files[path]))
    if path.suffix == ".json" and data.draw(st.booleans()):
        content = json.dumps(data.draw(altered(json.loads(files[path]), JSON))).encode()
    path.write_bytes(content)
    try:
        found = report_results.load(here / made.results_dir)
        assert isinstance(found.source, str) and isinstance(found.dataset, str) and found.describe("test")
    except UserError as error:
        assert str(here / made.results_dir) in str(error)
    finally:
        path.write_bytes(files[path])


SHOWN = st.one_of(
    st.text(max_size=12), st.text(st.sampled_from("ab 1_*`~|<>&\\[]()!:;\"'#$%{}^-.\n"), max_size=25),
    st.sampled_from(["[x](javascript:a)", "&lt;b&gt;", "<script>", "![a](http://b)", "<http://x.y>", "[a", "\\", "$x"]),
)  # fmt: skip


def seen(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


@given(st.lists(SHOWN, min_size=1, max_size=3))
def test_any_text_is_shown_as_it_stands_in_markdown(runs):
    """A real parser, HTML allowed, gives back the text and makes nothing of it."""
    text = pd.DataFrame([runs, runs], columns=[f"h{n}" for n in range(len(runs))])
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = parser.render(tables.markdown(tables.Table("t", "", "", text, text)))
    assert [html.unescape(run) for run in re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)] == 2 * list(
        map(seen, runs)
    )
    assert set(re.findall(r"</?(\w+)", page)) <= {"table", "thead", "tbody", "tr", "th", "td"}
    line = parser.render(f"- x {markdown.plain(runs[0])}\n")
    assert html.unescape(line) == f"<ul>\n<li>{f'x {seen(runs[0])}'.rstrip()}</li>\n</ul>\n"


@given(st.lists(SHOWN, min_size=1, max_size=3))
def test_any_text_is_text_in_latex(runs):
    r"""Read as TeX does: after the known escapes are taken out, no character is left that would be a command."""
    text = pd.DataFrame([runs, runs], columns=[f"h{n}" for n in range(len(runs))])
    code = latex(tables.Table("t", "A", "B", text, text))
    rows = code.split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(rows) == 2
    for row in rows:
        assert row.endswith(r" \\")
        known = r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]|-\{\}"
        left = re.sub(known + r"|\$(?:\\pm|\\times|\\infty|-)\$", "", row.removesuffix(r" \\").removeprefix("{}"))
        assert row.isascii() and "|" not in left
        assert not re.search(r"[\\$%#_{}~^]", left) and left.count("&") == len(runs) - 1
        assert row.startswith("{}") or not row.lstrip().startswith(("[", "*"))


def test_no_module_unpickles_or_evaluates():
    """By reading the sources: the only torch.load is told so, and no array is loaded with objects."""
    root = Path(__file__).parents[1]
    for path in [p for part in ("baselines", "colora", "pipelines", "report") for p in (root / part).rglob("*.py")]:
        text = path.read_text()
        assert not re.search(r"\bimport (pickle|cPickle|dill|joblib|marshal|shelve)\b|allow_pickle=True", text), path
        assert not re.search(r"(?<![.\w])(eval|exec)\(|yaml\.(unsafe_load|full_load)|shell=True", text), path
        for call in re.findall(r"(?<!safetensors\.)torch\.load\(.*?\)\n|get_state_dict\(.*?\)\n", text):
            assert "weights_only=True" in call, path
        for call in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=False" in call, path
