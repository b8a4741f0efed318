"""The README: the newest results, and links that lead somewhere."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def row(line):
    "The cells of a line of a table; the widths and colons of the line under the header do not count."
    found = [c.strip() for c in line.strip().strip("|").split("|")]
    return ["---" if re.fullmatch(r":?-+:?", c) else c for c in found]


def test_readme_shows_the_newest_results(monkeypatch):
    "The README's table is what the index notebook makes of the result files that are there now."
    monkeypatch.chdir(ROOT / "nbs")
    names = {}
    for cell in cells(ROOT / "nbs" / "index.ipynb"):
        if cell["cell_type"] == "code" and "nbdev_export" not in "".join(cell["source"]):
            exec("".join(cell["source"]), names)
    rows = [row(line) for line in names["results_table"]().split("\n")]
    shown = [row(line) for line in (ROOT / "README.md").read_text("utf-8").split("\n")]
    assert names["kept"]() in (ROOT / "README.md").read_text("utf-8")
    assert len(rows) > 2
    assert [r for r in rows if r not in shown] == []


def test_rows_of_tables_are_compared_by_cells():
    assert row("| a  |  **1.0** |") == row("| a | **1.0** |") != row("| a | 1.0 |")
    assert row("|:----|------:|") == row("|---|---|") != row("| a | b |")


@pytest.fixture(scope="module")
def make_readme():
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "make_readme.py")))


@pytest.mark.parametrize(
    "markdown, wanted",
    [
        ("[tasks](10_tasks.ipynb) and [how](../CONTRIBUTING.md)", "[tasks](nbs/10_tasks.ipynb) and [how](CONTRIBUTING.md)"),
        ("[two\nlines](benchmarks/demo.ipynb#the-demo)", "[two\nlines](nbs/benchmarks/demo.ipynb#the-demo)"),
        ("[a page](10_tasks.html) [another](other.html)", "[a page](nbs/10_tasks.ipynb) [another](nbs/other.html)"),
        (
            "[a page](tasks.html) [`Teacher`](teachers.html#teacher)",
            "[a page](nbs/10_tasks.ipynb) [`Teacher`](nbs/30_teachers.ipynb#teacher)",
        ),
        ('[![x](a.png)](b.md) <img src="a.png">', '[![x](nbs/a.png)](nbs/b.md) <img src="nbs/a.png">'),
        ("[`Teacher`](30_teachers.ipynb) `f[x](y)` ``g[`x`](y)``", "[`Teacher`](nbs/30_teachers.ipynb) `f[x](y)` ``g[`x`](y)``"),
        ("a lone `\n\n[z](z.md)\n\nand ` another", "a lone `\n\n[z](nbs/z.md)\n\nand ` another"),
        ("```python\nf[x](y)\n```\n[z](z.md)\n", "```python\nf[x](y)\n```\n[z](nbs/z.md)\n"),
        ("[a](https://x.org/a.md) [b](#b) [c](mailto:c@x.org) ![d](index_files/d.png)",) * 2,
    ],
)
def test_links_of_the_readme_start_at_the_top(make_readme, markdown, wanted):
    assert make_readme.relinked(markdown) == wanted


def test_readme_check_compares_words_and_links(make_readme):
    ours = f"{make_readme.MARK}\n\n# Z\n\nSee [tasks](nbs/10_tasks.ipynb) and `Teacher`.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    quarto = (
        "# Z\n\n<!-- WARNING -->\n\nSee [tasks](nbs/10_tasks.ipynb) and\n[`Teacher`](https://x.org/t.html#teacher).\n\n| a   | b   "
        "|\n|-----|-----|\n| 1   | 2   |\n"
    )
    assert make_readme.same(ours, ours) and make_readme.same(quarto, ours)
    assert not make_readme.same(ours.replace("See", "see"), ours)
    assert not make_readme.same(quarto.replace("| 2 ", "| 3 "), ours)
    assert not make_readme.same(quarto.replace("(nbs/10", "(10"), ours)


def test_links_of_the_readme_lead_somewhere(make_readme):
    targets = [t for t in make_readme.links((ROOT / "README.md").read_text("utf-8")) if "://" not in t]
    assert len(targets) > 10
    assert [t for t in targets if not (ROOT / t.partition("#")[0]).exists()] == []
