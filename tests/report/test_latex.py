"""LaTeX tables: escaped, as wide as they may be, and set by LaTeX itself without a complaint."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from report import pages
from report.pages.latex import latex
from report.text import Table
from tests.report import made


def table(columns: int = 2, rows: int = 2, *, width: int = 4, note: str = "A note.", **options) -> Table:
    text = pd.DataFrame({f"c{i}".ljust(width, "x"): ["9" * width] * rows for i in range(columns)})
    return Table("t_1", "A & B", note, text, text, **options)


def test_what_would_be_a_command_is_escaped():
    assert r"full \dag{}" in latex(Table("t_1", "A", "", *[pd.DataFrame({"Method": ["full †"]})] * 2))
    text = pd.DataFrame({"Method_1": ["a_b & 50 % of $x$ {#} ~^\\"], "±": ["0.1 ± 0.2"]})
    code = latex(Table("t_1", "A & B", "100 %", text, text))
    assert (
        r"a\_b \& 50 \% of \$x\$ \{\#\} \textasciitilde{}\textasciicircum{}\textbackslash{} & 0.1 $\pm$ 0.2 \\" in code
    )
    assert r"Method\_1 & $\pm$ \\" in code and r"\caption{A \& B.}" in code and r"100 \%" in code
    assert code.count(r"\begin") == code.count(r"\end") == 2
    assert all(rule in code for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert code.isascii()


def test_a_long_table_goes_on_in_further_floats_with_every_row_and_one_note():
    code = latex(table(rows=150))
    assert code.count(r"\begin{table}") == code.count(r"\end{table}") == 4
    assert re.findall(r"\\label{(.*)}", code) == ["tab:t-1", "tab:t-1-2", "tab:t-1-3", "tab:t-1-4"]
    assert code.count("{}9999 & 9999") == 150 and code.count("A note.") == 1 and code.count("(continued)") == 3


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no pdflatex (Debian: texlive-latex-recommended)"
)


def typeset(folder: Path, sources: list[str], options: str, margin: str = "2cm") -> list[str]:
    """Set floats, each on a page of its own, in an article; returns what LaTeX complains about."""
    text = [rf"\documentclass[{options}]{{article}}"]
    text += [rf"\usepackage[a4paper,margin={margin}]{{geometry}}"] if margin else []
    text += [r"\usepackage{array,booktabs,graphicx}", r"\begin{document}"]
    text += [source + "\n" + r"\clearpage" for source in sources]
    (folder / "paper.tex").write_text("\n".join([*text, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    return re.findall(r"^!.*|^Overfull .hbox.*|.*[Tt]oo large.*|.*multiply defined.*", done.stdout, re.MULTILINE)


@needs_latex
def test_a_complaint_is_noticed(tmp_path):
    wide = r"\noindent\mbox{" + "x" * 300 + "}"
    assert any("Overfull" in line for line in typeset(tmp_path, [wide], "twocolumn"))


@needs_latex
@pytest.mark.parametrize("options, margin", [("twocolumn", "2cm"), ("onecolumn", "2cm"), ("twocolumn", "")])
def test_any_shape_fits(tmp_path, options, margin):
    odd = pd.DataFrame({"[A]": ["[x]", "* é ≥ Δ", "--gpus | x"], "*": ["*", "[1, 2]", "\N{EM DASH}"]})
    shapes = [
        Table("t", "Brackets and stars", "", odd, odd),
        table(2),
        table(4, width=11),
        table(5, width=11),
        table(14, width=30),
        table(3, rows=130),
    ]
    words = pd.DataFrame({"A": ["word " * 60] * 9, "B": ["contradicted"] * 9, "C": ["word " * 20] * 9})
    shapes.append(Table("t", "Sentences", "word " * 300, words, words, left=3, widths=(0.6, 0.1, 0.27)))
    sources = [latex(shape).replace("tab:t", f"tab:{place}") for place, shape in enumerate(shapes)]
    assert typeset(tmp_path, sources, options, margin) == []


@needs_latex
def test_tables_and_figures_of_a_report_can_be_included_as_they_are(tmp_path):
    results = pages.read(made.write(tmp_path / "results" / "fake"), paper=True)
    out = tmp_path / "report" / "fake"
    pages.build(results, out)
    tables, figures = (sorted(out.glob(pattern)) for pattern in ("tables/*.tex", "figures/*.pdf"))
    assert len(tables) > 3 and len(figures) > 3
    sources = [rf"\input{{{path}}}" for path in tables]
    sources += [rf"\begin{{figure*}}\includegraphics[width=\textwidth]{{{path}}}\end{{figure*}}" for path in figures]
    assert typeset(tmp_path, sources, "twocolumn") == []
