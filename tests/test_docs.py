"""What is stored in notebooks and README: results that are the newest, outputs that a page can show."""
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").rglob("[!._]*.ipynb"))


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def test_readme_shows_the_newest_results(monkeypatch):
    "The README's table is what the index notebook makes of the result files that are there now."
    monkeypatch.chdir(ROOT / "nbs")
    names = {}
    for cell in cells(ROOT / "nbs" / "index.ipynb")[:5]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = names["results_table"]().split("\n")
    assert len(rows) > 2
    assert [row for row in rows if row not in readme] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs(path):
    "No error, no widget, nothing from stderr, no path of a machine is stored; the file stays small."
    assert path.stat().st_size < 300_000
    for cell in cells(path):
        for output in cell.get("outputs", []):
            text = json.dumps(output)
            assert output["output_type"] != "error" and output.get("name") != "stderr", text[:300]
            assert "widget-view" not in text and "/tmp/" not in text and "/home/" not in text, text[:300]
