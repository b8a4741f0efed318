#!/usr/bin/env python
"""Write README.md from nbs/index.ipynb.

If Quarto is on the PATH, nbdev_readme writes it. Otherwise nbconvert's Markdown exporter does, without the cells that nbdev's directives
hide. Both keep the links of the notebook; this script then makes them start at the top of the repository.

    python scripts/make_readme.py            write README.md
    python scripts/make_readme.py --check    exit 1 if README.md differs from the notebook
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

from zskd._site import page_file

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"
MARK = "<!-- Made from nbs/index.ipynb by scripts/make_readme.py. Edit the notebook, not this file. -->"
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$")
BLOCK = r"^ {0,3}(?P<fence>```+|~~~+)[\s\S]*?^ {0,3}(?P=fence)"
CODE = BLOCK + r"|(?P<ticks>`+)(?!`)[^`](?:(?:(?!\n\s*\n)[\s\S])*?[^`])?(?P=ticks)(?!`)"  # a block, or code within a line
LINK = re.compile(CODE + r"|(?P<head>\]\(|(?:href|src)=\")(?P<target>[^)\s\"]+)", re.MULTILINE)
SOURCES = {
    p.relative_to(ROOT / "nbs").with_name(page_file(p.name)).as_posix(): p.relative_to(ROOT / "nbs").as_posix()
    for p in (ROOT / "nbs").rglob("[!._]*.ipynb")
}
RESULT_TYPES = ("text/markdown", "text/plain")  # in order of preference


def split_directives(
    source: str,  # source of a code cell
) -> tuple[dict[str, str], str]:  # directives such as {'echo': 'false'}, and the code without them
    "Remove nbdev's directives from the head of a cell."
    found, lines = {}, source.splitlines()
    while lines and (m := DIRECTIVE.match(lines[0])):
        found[m[1].replace("-", "_")] = m[2].lower()
        lines.pop(0)
    return found, "\n".join(lines).strip("\n")


def visible(
    cell: nbformat.NotebookNode,  # a code cell
) -> tuple[bool, bool]:  # whether the code shows, whether the outputs show
    "Which parts of a cell nbdev's directives show."
    d, code = split_directives(cell.source)
    if {"hide", "default_exp", "export", "exporti"} & d.keys() or d.get("include") == "false":
        return False, False
    return bool(code) and d.get("echo") != "false" and "hide_input" not in d, d.get("output") != "false" and "hide_output" not in d


def texts(
    outputs: list[nbformat.NotebookNode],  # outputs of a cell
) -> list[nbformat.NotebookNode]:  # those that a README can show, in their plainest form
    "Keep Markdown as it is and everything else as text; drop what was written to stderr."
    kept = []
    for o in outputs:
        if o.output_type == "stream" and o.name == "stdout":
            kept.append(o)
        elif o.output_type in ("display_data", "execute_result"):
            kind = next((t for t in RESULT_TYPES if t in o.data), None)
            if kind:
                kept.append(nbformat.v4.new_output("display_data", data={kind: o.data[kind]}))
    return kept


def from_root(
    target: str,  # target of a link in the notebook
) -> str:  # the same, as seen from the top of the repository
    """A relative link of a notebook in nbs/ is one folder deeper in the README. Links to pictures that Quarto puts next to the README stay
    as they are."""
    if re.match(r"[a-z][a-z0-9+.-]*:|#|/|index_files/", target):
        return target
    path, mark, place = target.partition("#")
    page = re.sub(r"\.html$", ".ipynb", SOURCES.get(path, path))  # Quarto may name the page that a notebook becomes
    path = page if (ROOT / "nbs" / page).exists() else path
    return posixpath.normpath(posixpath.join("nbs", path)) + mark + place


def relinked(
    markdown: str,  # made from the notebook by either tool
) -> str:  # for the top of the repository
    "Make all links start at the top of the repository, except text in code that looks like one."
    return LINK.sub(lambda m: m["head"] + from_root(m["target"]) if m["head"] else m[0], re.sub(r"<object[\s\S]*?</object>", "", markdown))


def readme(
    notebook: Path,  # the notebook to convert
) -> str:  # Markdown, the same for the same notebook on every machine
    "The README that nbconvert makes of a notebook."
    nb = nbformat.read(notebook, as_version=4)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            show_code, show_output = visible(cell)
            cell.outputs = texts(cell.outputs) if show_output else []
            cell.source = split_directives(cell.source)[1] if show_code else ""
            if not cell.source and not cell.outputs:
                continue
        cells.append(cell)
    nb.cells = cells
    nb.metadata.language_info = {"name": "python"}  # names the language of code blocks
    body, _ = MarkdownExporter().from_notebook_node(nb)
    body = re.sub(r"```python\n+```\n", "", body)  # hidden code whose output shows
    body = "\n".join(line.rstrip() for line in body.splitlines())
    return relinked(f"{MARK}\n\n{re.sub(chr(10) + '{3,}', chr(10) * 2, body).strip()}\n")


def words(
    markdown: str,  # a README
) -> list[str]:  # what it says
    "The words of a README without link targets, comments and names of languages; they are the same whichever tool wrote it."
    text = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^\s*```.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.findall(r"\w+", text)


def links(
    markdown: str,  # a README
) -> list[str]:  # where its links lead, in their order
    "Targets of the links of a README, without those that nbdev adds to names in code."
    added = re.compile(r"\[`[^`]+`\]\([^)#]*#[^)]*\)")
    return [m["target"] for m in LINK.finditer(added.sub("", markdown)) if m["head"]]


def same(
    old: str,  # the README that is there
    new: str,  # the README that nbconvert makes of the notebook
) -> bool:  # whether they say the same
    "Compare exactly if nbconvert wrote the first, otherwise by words and link targets."
    return old == new if old.startswith(MARK) else words(old) == words(new) and links(old) == links(new)


def check() -> str | None:  # what is wrong, None if nothing is
    "Compare README.md with the notebook."
    if not README.exists():
        return "README.md is missing"
    if not same(README.read_text(encoding="utf-8"), readme(NOTEBOOK)):
        return "README.md differs from nbs/index.ipynb"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if README.md is out of date")
    parser.add_argument(
        "--tool", choices=("auto", "quarto", "nbconvert"), default="auto", help="tool that writes it (default: Quarto if installed)"
    )
    args = parser.parse_args()
    if args.check:
        problem = check()
        print(f"{problem}; run python scripts/make_readme.py" if problem else "README.md is up to date with nbs/index.ipynb")
        return 1 if problem else 0
    if args.tool == "quarto" or (args.tool == "auto" and shutil.which("quarto")):
        failed = subprocess.run(["nbdev_readme"], cwd=ROOT).returncode
        if not failed:
            README.write_text(relinked(README.read_text(encoding="utf-8")), encoding="utf-8")
        return failed
    README.write_text(readme(NOTEBOOK), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
