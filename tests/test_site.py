"""The source of the documentation site, which can be checked without Quarto: pages, links, outputs, names and spelling."""

import ast
import configparser
import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import zskd
from zskd._site import page_file

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
    return (
        re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text)
        + re.findall(r"""(?:href|src)=["']([^"']+)["']""", text)
        + re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.M)
    )


def source_of(path):
    "The notebook behind a page, which has its name without the number."
    return next((p for p in PAGES if p.parent == path.parent and page_file(p.name) == path.name), path)


def broken(path, text):
    "Links of a page that lead nowhere."
    found = []
    for link in links(text):
        target, _, place = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        page = source_of((path.parent / target).resolve()) if target else path
        if not page.exists() or place and place not in anchors(page):
            found.append(link)
    return found


def misspelt(texts, folder):
    "The misspelt words of each text. They are all read at once, because codespell takes longer to start."
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list=docments,docment", *texts]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    found = [re.fullmatch(r"(?:\./)?([^:]+):(.* ==> .*)", line) for line in done.stdout.splitlines()]
    return {name: [line[2] for line in found if line[1] == name] for name in texts}


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


def head(text):
    "The front matter of a page."
    return yaml.safe_load(re.match(r"---\n(.*?)\n---", text, re.S)[1])


def outputs(formats, pages):
    "What Quarto writes: a file for each page and format, and a copy of the Markdown that it renders where keep-md asks for it."
    endings = {"html": "html", "commonmark": "md", "gfm": "md", "markdown": "md"}
    for path, text in pages.items():
        stem = head(text).get("output-file", path.stem)
        for name, options in formats.items():
            yield path.parent / (stem if stem.endswith(f".{endings[name]}") else f"{stem}.{endings[name]}")
            if options != "default" and options.get("keep-md"):
                yield path.parent / f"{path.stem}.{name}.md"


def test_two_formats_with_one_file_are_found():
    pages = {Path("10_tasks.ipynb"): "---\noutput-file: tasks\n---", Path("commands/demo.qmd"): "---\ntitle: a\n---"}
    assert [str(p) for p in outputs({"html": {}, "commonmark": "default"}, pages)] == [
        "tasks.html",
        "tasks.md",
        "commands/demo.html",
        "commands/demo.md",
    ]
    assert len(set(outputs({"html": {}, "commonmark": "default", "gfm": {"wrap": "preserve"}}, pages))) == 4
    clash = {Path("index.ipynb"): "---\noutput-file: index.html\n---"}
    assert [str(p) for p in outputs({"html": {"keep-md": True}, "commonmark": "default"}, clash)] == [
        "index.html",
        "index.html.md",
        "index.html.md",
    ]


def test_pages_that_are_made_are_up_to_date():
    done = subprocess.run([sys.executable, "scripts/make_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def extra(name):
    "What settings.ini asks for: always, and for an extra."
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    keys = dict(re.findall(r'"(\w+)": cfg\["(\w+)"\]', (ROOT / "setup.py").read_text("utf-8")))
    return [*settings["DEFAULT"]["requirements"].split(), *settings["DEFAULT"][keys[name]].split()]


def closure(requirements):
    "The distributions that pip would install for requirements, with all that these need."
    todo, seen, found = [(Requirement(r), "") for r in requirements], set(), {}
    while todo:
        wanted, of = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, *sorted(wanted.extras)) in seen or wanted.marker and not wanted.marker.evaluate({"extra": of}):
            continue
        seen.add((name, *sorted(wanted.extras)))
        if name == "zskd":
            todo += [(Requirement(r), "") for e in wanted.extras for r in extra(e)]
            continue
        found[name] = importlib.metadata.distribution(name)
        todo += [(Requirement(r), e) for r in found[name].requires or [] for e in wanted.extras | {""}]
    return found


def environment(distributions, folder):
    """A folder to import from, which holds links to these distributions and nothing else: what is not among them is not installed, for
    `import` and for importlib.metadata."""
    for dist in distributions:
        for top in {file.parts[0] for file in dist.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(dist.locate_file(top))
    ours = importlib.metadata.distribution("zskd")  # nbdev finds its index by an entry point
    (folder / "zskd.dist-info").mkdir()
    (folder / "zskd.dist-info" / "METADATA").write_text(ours.read_text("METADATA") or ours.read_text("PKG-INFO"), "utf-8")
    (folder / "zskd.dist-info" / "entry_points.txt").write_text(ours.read_text("entry_points.txt"), "utf-8")


LIVE = "<body>a student"


def copy_of_sources(folder):
    "What git knows of the project."
    kept = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(lambda n: n.startswith(("nbs/", "zskd/", "scripts/")) or "/" not in n and n, kept):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "nbs" / "live").mkdir()
    (folder / "nbs" / "live" / "index.html").write_text(LIVE)  # in place of a student, which takes minutes


def prepare(folder, command, **env):
    """Run nbdev_proc_nbs, which is all of nbdev_docs but Quarto, and then what Quarto runs before it renders. Quarto itself is never
    called: the one on the PATH here would fail."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "quarto").write_text("#!/bin/sh\nexit 9\n")
    (tools / "quarto").chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "TQDM_DISABLE": "1", **env}
    done = subprocess.run(
        [*command, "-c", "import gc; from nbdev.quarto import nbdev_proc_nbs; nbdev_proc_nbs(n_workers=0); gc.freeze()"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    project = yaml.safe_load((folder / "_proc" / "_quarto.yml").read_text("utf-8"))["project"]
    for script in project["pre-render"]:
        subprocess.run([*command, script], cwd=folder / "_proc", env=env, check=True)
    return folder / "_proc"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The pages as Quarto gets them, made with the packages of the extra `docs` alone."
    folder, packages = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("packages")
    copy_of_sources(folder)
    environment(closure(extra("docs")).values(), packages)
    return prepare(folder, [sys.executable, "-S"], PYTHONPATH=os.pathsep.join([str(folder), str(packages)]))


def test_the_extra_docs_makes_every_page(made):
    assert [p for p in PAGES if not (made / p.relative_to(NBS)).exists()] == []
    assert "Distiller" in (made / "64_training.ipynb").read_text("utf-8") and "passes over the pool" in (
        made / "64_training.ipynb"
    ).read_text("utf-8")
    project = yaml.safe_load((made / "_quarto.yml").read_text("utf-8"))
    files = [*project["project"]["resources"], *project["metadata-files"], "styles.css", "colab.html"]
    assert all((made / name.removesuffix("/**")).exists() for name in files)
    assert (made / "live" / "index.html").read_text() == LIVE


def markdown(path):
    "A page as Quarto hands it to Pandoc: its text, what its cells show as Markdown, and its code."
    if path.suffix == ".qmd":
        return path.read_text("utf-8")
    parts = []
    for cell, source in cells(path):
        shown = ["".join(o.get("data", {}).get("text/markdown", "")) for o in cell.get("outputs", [])]
        parts += ["\n\n".join(shown)] if cell["cell_type"] == "code" else [source]
    return "\n\n".join(parts)


@pytest.fixture(scope="module")
def pages(made):
    "What is to be read on each page, by its place in the site."
    return {p.relative_to(made): markdown(p) for p in sorted(made.rglob("*")) if p.suffix in (".ipynb", ".qmd")}


@pytest.fixture(scope="module")
def rendered(pages):
    "What Pandoc, which Quarto renders with, makes of each page."
    pypandoc = pytest.importorskip("pypandoc", reason="pypandoc_binary is not installed")
    return {path: json.loads(pypandoc.convert_text(text, "json", format="markdown")) for path, text in pages.items()}


def elements(tree, *kinds):
    "The elements of Pandoc's tree."
    for node in tree if isinstance(tree, list) else tree.values() if isinstance(tree, dict) else ():
        if isinstance(node, dict) and node.get("t") in kinds:
            yield node
        yield from elements(node, *kinds)


def words(tree):
    "The words of a page outside of its code."
    return [node["c"] for node in elements(tree, "Str")]


def test_each_file_of_the_site_is_written_once(made, pages):
    files = list(outputs(yaml.safe_load((made.parent / "_quarto.yml").read_text("utf-8"))["format"], pages))
    assert len(files) == 2 * len(PAGES) and len(set(files)) == len(files)


def test_options_keep_both_hyphens(rendered):
    wrong = [(str(path), word) for path, tree in rendered.items() for word in words(tree) if re.search(r"(^|\W)[–—]\w", word)]
    assert wrong == []


def test_no_link_is_shown_as_it_is_written(rendered):
    "Not in the text, and not in the code of a signature."
    text = [(str(path), word) for path, tree in rendered.items() for word in words(tree) if "](" in word]
    code = [
        (str(path), line)
        for path, tree in rendered.items()
        for node in elements(tree, "CodeBlock")
        for line in node["c"][1].split("\n")
        if re.search(r"\[`[^`]+`\]\(", line)
    ]
    assert len(rendered) == len(PAGES) and text == [] and [c for c in code if "95_site" not in c[0]] == []


def test_links_of_the_made_pages_stay_within_the_site(made, pages, rendered):
    """Each link leads to a page, to a place in it, or to a file of the site; no link uses the address of the site or shows a page as a file
    of the repository."""
    site = yaml.safe_load((made / "nbdev.yml").read_text("utf-8"))["website"]
    files = {path.parent / f"{head(text).get('output-file', path.stem)}.html": path for path, text in pages.items()}
    places = {path: {node["c"][1][0] for node in elements(tree, "Header")} for path, tree in rendered.items()}
    wrong = []
    for path, tree in rendered.items():
        targets = [node["c"][-1][0] for node in elements(tree, "Link", "Image")]
        targets += [
            t for node in elements(tree, "RawBlock", "RawInline") for t in re.findall(r"""(?:href|src)=["']([^"']+)""", node["c"][1])
        ]
        for link in targets:
            target, _, place = link.partition("#")
            if re.match(r"[a-z]+:", link):
                good = not link.startswith((site["site-url"], f"{site['repo-url']}/blob/{site['repo-branch']}/nbs/"))
            else:
                to = Path(os.path.normpath(path.parent / target)) if target else None
                page = files.get(to, path if to is None else None)
                good = (
                    page is not None
                    and (not place or place in places[page])
                    or to is not None
                    and page is None
                    and to.suffix not in (".ipynb", ".qmd")
                    and (made / to).is_file()
                )
            wrong += [] if good else [(str(path), link)]
    assert wrong == []


def test_llms_txt_leads_to_every_page(made, pages):
    url = yaml.safe_load((made / "nbdev.yml").read_text("utf-8"))["website"]["site-url"]
    written = {
        str(p) for p in outputs(yaml.safe_load((made.parent / "_quarto.yml").read_text("utf-8"))["format"], pages) if p.suffix == ".md"
    }
    listed = [link.removeprefix(f"{url}/") for link in links((made / "llms.txt").read_text("utf-8"))]
    assert sorted(listed) == sorted(written)


def names_of(source):
    "What an exported cell documents: public functions and classes, and methods that are patched onto a class."
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            patched = any(ast.unparse(d) == "patch" or ast.unparse(d).startswith("patch(") for d in node.decorator_list)
            yield f"{ast.unparse(node.args.args[0].annotation)}.{node.name}" if patched else node.name


def test_names_are_documented_in_the_order_of_their_cell(made):
    several = 0
    for path in NOTEBOOKS:
        documented = re.findall(r"^### ([\w.]+)$", markdown(made / path.relative_to(NBS)), re.M)
        for _, source in cells(path, "code"):
            names = list(names_of(source)) if re.match(r"#\| ?exports?\b", source) and not re.search(r"^#\| ?hide\b", source, re.M) else []
            names = [n for n in names if n in documented]
            several += len(names) > 1
            assert names == sorted(names, key=documented.index), path
    assert several > 5


def test_a_name_leads_to_its_source(made, pages):
    found = 0
    for path, text in pages.items():
        for file, line, name in re.findall(r"^\[source\]\([^)]*/blob/main/(\S+?)#L(\w+)\).*\n\n### ([\w.]+)$", text, re.M):
            code = (made.parent / file).read_text("utf-8").split("\n")[int(line) - 1]
            assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), (path, name)
            found += 1
    assert found > 300


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


# Quarto's page, in short: bars at the top and the side, a title, a column of text.
PAGE = """<!doctype html><meta name="viewport" content="width=device-width"><style>body { margin: 0; font: 17px/1.5 sans-serif }
header { height: 60px } nav { float: left; width: 250px; height: 1px } main { max-width: 800px; margin: auto; padding: 0 12px }
h1 { font-size: 2rem } @media (max-width: 990px) { nav { display: none } }</style>"""


def first_screen(made) -> str:
    "What the first page shows before its first heading, as HTML."
    shown = []
    for cell in json.loads((made / "index.ipynb").read_text("utf-8"))["cells"]:
        if "## What it does" in "".join(cell["source"]):
            break
        data = [output["data"] for output in cell.get("outputs", []) if "data" in output]
        html = ["".join(d["text/html"]) if "text/html" in d else "".join(d.get("text/markdown", "")) for d in data]
        shown += ["".join(cell["source"])] if cell["cell_type"] == "markdown" else html
    return f"{PAGE}<link rel=stylesheet href=styles.css><header></header><nav></nav><main><p>{'<p>'.join(shown)}</main>"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_first_page_opens_with_a_live_student(made, browser, tmp_path, width, there):
    "All on one screen; where there is no student, a picture takes its place."
    for name in ("images", "live") if there else ("images",):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "styles.css", tmp_path)
    (tmp_path / "index.html").write_text(first_screen(made), encoding="utf-8")
    server = ThreadingHTTPServer(("localhost", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(f"http://localhost:{server.server_port}", wait_until="networkidle")
    box, picture, said = page.locator("object").bounding_box(), page.locator("object img"), page.inner_text("main")
    assert box["y"] + box["height"] <= 800 and box["x"] + box["width"] <= width
    assert "pip install" in said and re.search(r"\d+ to \d+ % of the teacher", said)
    assert picture.is_visible() != there
    if there:
        assert page.frames[1].inner_text("body") == "a student"
    else:
        assert picture.evaluate("image => image.naturalWidth") > 500
    server.shutdown()
    page.close()


# The colours of Quarto's themes cosmo and darkly, and its own rules for code within a line.
THEMES = {
    "light": "body { background: #fff; color: #373a3c } a { color: #2780e3 } code { color: #7d12ba } p code:not(.sourceCode) { "
    "background: #f8f9fa }",
    "dark": "body { background: #222; color: #fff } a { color: #00bc8c } code { color: #7d12ba } p code:not(.sourceCode) { background: "
    "#2b2b2b }",
}
CONTRAST = """() => [...document.querySelectorAll("code")].map(code => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => { const a = top[3] ?? 1; return below.map((b, i) => a * top[i] + (1 - a) * b); };
  const light = rgb => { const [r, g, b] = rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const below = over(parse(getComputedStyle(code).backgroundColor), parse(getComputedStyle(document.body).backgroundColor).slice(0, 3));
  const [a, b] = [light(parse(getComputedStyle(code).color)), light(below)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})"""


@pytest.mark.parametrize("theme", THEMES)
def test_code_within_a_line_can_be_read(made, browser, theme):
    "By the measure of WCAG, which asks for a contrast of 4.5; a link in the light theme has 4 without code, too."
    style = (made / "styles.css").read_text("utf-8")
    text = "<p>a <code>b</code></p><ul><li><code>b</code></li></ul><table><tr><td><code>b</code></td></tr></table><h2><code>b</code></h2>"
    page = browser.new_page()
    page.set_content(f"<style>{THEMES[theme]}</style><style>{style}</style>{text}")
    assert min(page.evaluate(CONTRAST)) >= 4.5
    page.set_content(f"<style>{THEMES['dark']}</style>{text}")
    assert min(page.evaluate(CONTRAST)) < 2.5  # what Quarto has by itself
    page.close()


def test_colab_is_offered_where_the_notebook_installs_the_package(made, browser):
    script, page, offered = (made / "colab.html").read_text("utf-8"), browser.new_page(), []
    for path in NOTEBOOKS:
        shown = "".join(
            f"<pre><code>{source}</code></pre>" for _, source in cells(made / path.relative_to(NBS), "code") if "show_doc" not in source
        )
        edit = f'<ul><li><a href="https://github.com/zskd/zskd/edit/main/nbs/{path.relative_to(NBS)}">Edit</a></li></ul>'
        page.set_content(f"{edit}{re.sub(r'</?(?!pre|code)[a-z][^>]*>', '', shown)}{script}")
        page.wait_for_load_state("domcontentloaded")
        offered += [path] if page.locator("text=Open in Colab").count() else []
    page.close()
    assert (
        offered
        == [p for p in NOTEBOOKS if any(re.search(r"^[!%]pip install .*\bzskd\b", source, re.M) for _, source in cells(p, "code"))]
        != []
    )


def test_a_package_that_is_not_in_the_extra_is_not_found(tmp_path):
    environment(closure(["nbconvert>=7", "setuptools"]).values(), tmp_path)
    look = (
        "import importlib.util as u, importlib.metadata as m; print(*[bool(u.find_spec(n)) for n in ('nbconvert', 'jinja2', "
        "'torch')], len(list(m.distributions(name='torch'))))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", look], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "True", "False", "0"], done.stderr


@pytest.mark.slow
def test_pages_are_made_in_a_new_environment(tmp_path, request):
    "What the workflow does before it calls Quarto; it downloads some 200 packages."
    if "slow" not in request.config.getoption("--flags").split():
        pytest.skip("takes minutes and the network; ask for it with --flags slow")
    copy_of_sources(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    python = tmp_path / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", ".[docs]"], cwd=tmp_path, check=True)
    prepare(tmp_path, [python])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_links_lead_somewhere(path):
    assert broken(path, prose(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_papers_are_links(path):
    "Numbers of arXiv in the text, outside of code, lead to the paper."
    text = re.sub(r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)|https?://\S+", "", prose(path), flags=re.DOTALL)
    assert re.findall(r"(?<![\d./\w-])\d{4}\.\d{5}(?!\d)", text) == []


def test_a_broken_link_is_found():
    page = NBS / "10_tasks.ipynb"
    assert broken(page, "[a](20_corpora.ipynb) [b](https://x.org) `[c](c.ipynb)`") == []
    assert broken(page, '[a](nowhere.ipynb "t") <img src="no.png">') == ["nowhere.ipynb", "no.png"]
    assert broken(page, "[a](nowhere.ipynb) [b](20_corpora.ipynb#nowhere) [c](#nowhere)") == [
        "nowhere.ipynb",
        "20_corpora.ipynb#nowhere",
        "#nowhere",
    ]
    assert anchor("The `Teacher`, [read](x.ipynb): 2 of it") == "the-teacher-read-2-of-it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_stored_outputs(path):
    """A static page can show each, with the site's own script; no error, no widget, nothing from stderr, no path of a machine is stored,
    and the file stays small."""
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


def is_figure(cell, source):
    return "![" in source if cell["cell_type"] == "markdown" else "plotly-graph-div" in json.dumps(cell["outputs"])


@pytest.mark.parametrize("path", sorted((NBS / "benchmarks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_benchmarks_open_with_a_chart(path):
    "Before any heading or table, and without the code that draws it."
    for cell, source in cells(path)[1:]:
        assert not source.startswith("##") and "| --- |" not in json.dumps(cell.get("outputs", ""))
        if is_figure(cell, source):
            assert source.startswith("#| echo: false")
            break
    else:
        pytest.fail("no chart")
    for _, source in cells(path, "code"):
        assert re.match(r"#\| (echo: false|code-fold: true|hide)|.*nbdev_export", source), source[:200]


@pytest.mark.parametrize("path", sorted((NBS / "tutorials").glob("*.ipynb")), ids=lambda p: p.stem)
def test_tutorials_have_a_figure(path):
    assert any(is_figure(cell, source) for cell, source in cells(path))


@pytest.mark.parametrize("path", sorted((NBS / "tutorials").glob("*.ipynb")), ids=lambda p: p.stem)
def test_tutorials_show_what_each_cell_gives(path):
    silent = [
        source
        for cell, source in cells(path, "code")
        if not cell["outputs"] and not re.search(r"^#\| ?hide\b|^!pip install -q ", source, re.M)
    ]
    assert [s for s in silent if not all(isinstance(line, (ast.Import, ast.ImportFrom)) for line in ast.parse(s).body)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_notebook_says_what_it_is(path):
    "It begins with one title and one sentence."
    titles = re.findall(r"^# .+$", CODE.sub("", prose(path)), re.M)
    assert len(titles) == 1 and re.search(r"^# .+\n\n> .+[.?]$", prose(path), re.M)


def modules():
    names = [m.name.removeprefix("zskd.") for m in pkgutil.walk_packages(zskd.__path__, "zskd.") if not m.ispkg]
    return [name for name in names if not name.startswith("_") and name != "all"]


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


PROSE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def written_as(path):
    "One name for a page, without folders."
    return "-".join(path.relative_to(ROOT).parts)


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    return misspelt({written_as(p): CODE.sub("", prose(p)) for p in PROSE}, tmp_path_factory.mktemp("prose"))


@pytest.mark.parametrize("path", PROSE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_spelling(path, spelling):
    assert spelling[written_as(path)] == []


def test_a_misspelt_word_is_found(tmp_path):
    texts = {"a.ipynb": "We receive a letter.\n", "b.qmd": "So do you.\nWe recieve a letter.\n"}
    assert misspelt(texts, tmp_path) == {"a.ipynb": [], "b.qmd": ["2: recieve ==> receive"]}
