"""The source of the documentation site, which can be checked without Quarto: pages, links, outputs, names and spelling."""
import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import zskd

ROOT = Path(__file__).parents[1]
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(NBS.rglob("[!._]*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(NBS.rglob("[!._]*.qmd"))]
SHOWN = {"text/html", "text/markdown", "text/plain", "image/png", "image/svg+xml"}  # what a page can show
CODE = re.compile(r"^(```+|~~~+)[\s\S]*?^\1|(`+)[^`][\s\S]*?\2", re.M)


def cells(path, kind=None):
    found = json.loads(path.read_text("utf-8"))["cells"]
    return [(c, "".join(c["source"])) for c in found if kind in (None, c["cell_type"])]


def prose(path):
    "The Markdown of a page, without its code."
    return path.read_text("utf-8") if path.suffix != ".ipynb" else "\n\n".join(source for _, source in cells(path, "markdown"))


def anchor(heading):
    "The name that Pandoc gives a heading."
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    text = re.sub(r"[^\w\s.-]", "", text).strip().lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", text))


def anchors(path):
    "The places in a page: its headings, and the names that it documents."
    return {anchor(line) for line in re.findall(r"^#+ (.+)$", CODE.sub("", prose(path)), re.M)}


def links(text):
    "Where the links and images of a page lead, in Markdown and in HTML."
    text = CODE.sub("", text)
    return re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text) + re.findall(r"""(?:href|src)=["']([^"']+)["']""", text) + re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.M)


def broken(path, text):
    "Links of a page that lead nowhere."
    found = []
    for link in links(text):
        target, _, place = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        page = (path.parent / target).resolve() if target else path
        if not page.exists() or place and place not in anchors(page):
            found.append(link)
    return found


def misspelt(text):
    done = subprocess.run([sys.executable, "-m", "codespell_lib", "--ignore-words-list=docments,docment", "-"], input=text, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "==>" in line]


def in_sidebar(contents):
    for entry in contents:
        yield from [entry] if isinstance(entry, str) else in_sidebar(entry["contents"])


def test_every_page_is_in_the_sidebar_once():
    listed = list(in_sidebar(yaml.safe_load((NBS / "sidebar.yml").read_text("utf-8"))["website"]["sidebar"]["contents"]))
    assert sorted(listed) == sorted(str(p.relative_to(NBS)) for p in PAGES)


def test_the_bar_on_top_leads_to_pages():
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text("utf-8"))
    targets = [entry["href"] for entry in site["website"]["navbar"]["left"]]
    assert targets and all((NBS / t).exists() for t in targets)
    assert all((NBS / name).exists() for name in (site["format"]["html"]["css"], site["format"]["html"]["include-after-body"]))


def test_pages_that_are_made_are_up_to_date():
    done = subprocess.run([sys.executable, "scripts/make_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pages_are_made_ready_for_quarto(tmp_path):
    "What `nbdev_docs` does before it calls Quarto: the documentation of every name can be written, and all that the pages need is there."
    kept = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(lambda n: n.startswith(("nbs/", "zskd/", "scripts/")) or "/" not in n and n, kept):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "TQDM_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=2)"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    made = tmp_path / "_proc"
    assert [p for p in PAGES if not (made / p.relative_to(NBS)).exists()] == []
    assert "Distiller" in (made / "50_distill.ipynb").read_text("utf-8") and "passes over the pool" in (made / "50_distill.ipynb").read_text("utf-8")
    project = yaml.safe_load((made / "_quarto.yml").read_text("utf-8"))
    subprocess.run([sys.executable, project["project"]["pre-render"]], cwd=made, check=True)
    assert all((made / name).exists() for name in [*project["project"]["resources"], *project["metadata-files"], "styles.css", "colab.html"])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_links_lead_somewhere(path):
    assert broken(path, prose(path)) == []


def test_a_broken_link_is_found():
    page = NBS / "10_tasks.ipynb"
    assert broken(page, "[a](20_corpora.ipynb) [b](https://x.org) `[c](c.ipynb)`") == []
    assert broken(page, '[a](nowhere.ipynb "t") <img src="no.png">') == ["nowhere.ipynb", "no.png"]
    assert broken(page, "[a](nowhere.ipynb) [b](20_corpora.ipynb#nowhere) [c](#nowhere)") == ["nowhere.ipynb", "20_corpora.ipynb#nowhere", "#nowhere"]
    assert anchor("The `Teacher`, [read](x.ipynb): 2 of it") == "the-teacher-read-2-of-it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_stored_outputs(path):
    "A static page can show each, with the site's own script; no error, no widget, nothing from stderr, no path of a machine is stored, and the file stays small."
    assert path.stat().st_size < 300_000
    assert "widgets" not in json.loads(path.read_text())["metadata"]
    script = "../" * len(path.relative_to(NBS).parent.parts) + "plotly.min.js"
    for cell, source in cells(path, "code"):
        for output in cell["outputs"]:
            text = json.dumps(output)
            assert output["output_type"] != "error" and output.get("name") != "stderr", text[:300]
            assert not any(bad in text for bad in ("widget-view", "/tmp/", "/home/", "Unable to display")), text[:300]
            assert "data" not in output or SHOWN & set(output["data"]), source[:200]
            assert set(re.findall(r'src=\\"([^"]*plotly[^"]*)\\"', text)) <= {script}, source[:200]


@pytest.mark.parametrize("path", sorted((NBS / "tutorials").glob("*.ipynb")), ids=lambda p: p.stem)
def test_tutorials_show_what_each_cell_gives(path):
    silent = [source for cell, source in cells(path, "code") if not cell["outputs"] and not re.match(r"#\| ?hide\b", source)]
    assert [s for s in silent if not all(isinstance(line, (ast.Import, ast.ImportFrom)) for line in ast.parse(s).body)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_notebook_says_what_it_is(path):
    "It begins with one title and one sentence."
    titles = re.findall(r"^# .+$", CODE.sub("", prose(path)), re.M)
    assert len(titles) == 1 and re.search(r"^# .+\n\n> .+[.?]$", prose(path), re.M)


def modules():
    return [m.name for m in pkgutil.iter_modules(zskd.__path__) if not m.name.startswith("_") and m.name != "all"]


@pytest.mark.parametrize("name", modules())
def test_names_are_documented(name):
    "Every public function, class and method has a docstring."
    if name in ("plots", "dashboards"):
        pytest.importorskip("plotly")
        pytest.importorskip("ipywidgets")
    module = importlib.import_module(f"zskd.{name}")
    bare = []
    for what in module.__all__:
        thing = getattr(module, what)
        if inspect.isclass(thing):
            own = {k: inspect.unwrap(getattr(v, "__func__", v)) for k, v in vars(thing).items() if not k.startswith("_")}
            bare += [f"{what}.{k}" for k, v in own.items() if inspect.isfunction(v) and not inspect.getdoc(getattr(thing, k))]
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and (not thing.__doc__ or thing.__doc__.startswith(f"{what}(")):
            bare.append(what)
    assert bare == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_spelling(path):
    assert misspelt(CODE.sub("", prose(path))) == []


def test_a_misspelt_word_is_found():
    assert misspelt("We recieve a letter.\n") and not misspelt("We receive a letter.\n")
