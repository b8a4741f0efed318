"""Imports go down only: a module imports at its top, from modules of notebooks before its own. And nothing is too long."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HIGHER = {"__init__"}  # offers names of modules above it, and loads them when they are used
LATE = {
    "steps",
    "folders",
    "commands",
    "student_commands",
    "dashboard_command",
    "speed_command",
    "demo",
    "cli",
    "_site",
}  # load what they need when a command runs


def rooms() -> list[str]:
    """The modules in the order of their notebooks."""
    sources = [
        "".join(json.loads(p.read_text(encoding="utf-8"))["cells"][0]["source"]) for p in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    ]
    return [found[1] for source in sources if (found := re.search(r"default_exp (\S+)", source))]


def arrows(path: Path) -> list[tuple[str, bool]]:
    """The modules of this package that a file imports, and whether it does so inside a function."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "zskd"):
            module = (node.module or "").removeprefix("zskd").removeprefix(".")
            found += [(name, id(node) in inside) for name in ([module] if module else [a.name for a in node.names])]
    return found


def test_imports_go_down_only_and_stand_at_the_top():
    order = rooms()
    wrong = {
        (module, name): "inside a function" if late else "upwards"
        for module in order
        for name, late in arrows(ROOT / "zskd" / f"{module.replace('.', '/')}.py")
        if name in order and (late and module not in LATE or order.index(name) >= order.index(module) and module not in HIGHER)
    }
    assert not wrong, "the first module of each imports the second"


def test_modules_notebooks_and_cells_are_short():
    "At most 700 lines, 120 cells, and 40 lines in an exported cell."
    books = {
        p: json.loads(p.read_text(encoding="utf-8"))["cells"] for p in (ROOT / "nbs").rglob("[!.]*.ipynb") if "checkpoints" not in str(p)
    }
    modules = [p for p in (ROOT / "zskd").rglob("*.py") if p.name != "_modidx.py"]
    exported = {(p.name, c["id"]): len(c["source"]) - 1 for p, cells in books.items() for c in cells if c["source"][:1] == ["#| export\n"]}
    assert not {p.name: n for p in modules if (n := len(p.read_text(encoding="utf-8").splitlines())) > 700}
    assert not {p.name: len(cells) for p, cells in books.items() if len(cells) > 120}
    assert len(exported) > 300 and not {cell: n for cell, n in exported.items() if n > 40}


def test_what_needs_an_extra_is_known_and_says_so():
    "Everything else must import in a plain installation."
    script = ROOT / "scripts" / "check_imports.py"
    done = subprocess.run([sys.executable, str(script), "--hide"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
