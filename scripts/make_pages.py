#!/usr/bin/env python
"""Write the generated part of the documentation: a page for each command of `zskd` (nbs/commands), and llms.txt, a list of all pages.

python scripts/make_pages.py            write them
python scripts/make_pages.py --check    exit 1 if one of them is out of date
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml

from zskd import cli  # noqa: F401  registers the commands
from zskd._site import options_in_code, page_file
from zskd.options import ABOUT_CONFIG, COMMANDS, Command, Option, options_of

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
SITE = yaml.safe_load((NBS / "nbdev.yml").read_text(encoding="utf-8"))["website"]
MADE = "<!-- Made from zskd/commands.py by scripts/make_pages.py. -->"


def in_code(
    text: str,  # may hold `names in code`
) -> str:  # with options in code, where Pandoc keeps their hyphens
    "Text for a cell of a Markdown table."
    return options_in_code(text.replace("|", "\\|"))


def option_line(
    option: Option,
    by_place: bool,  # whether it is given without its name
) -> str:  # a row of a Markdown table
    "An option and what it means."
    given = "" if option.kind == "bool" else f" {option.value}{' …' if option.many else ''}"
    return f"| `{option.value if by_place else option.flag + given}` | {in_code(option.help)} |"


def options_table(
    step: Any,  # a command or step of one
    seen: set[str],  # options of earlier tables; the new ones are added
    by_place: str = "",  # the positional argument
) -> str:  # Markdown; empty if nothing is left
    "The options of a step."
    lines = []
    for name, option in options_of(step).items():
        if name not in seen:
            lines.append(option_line(option, name == by_place))
    seen |= options_of(step).keys()
    return "| option | |\n|----|--------|\n" + "\n".join(lines) if lines else ""


def command_page(
    name: str,  # of the command
    command: Command,  # its function, steps and examples
) -> str:  # Quarto's Markdown
    "The page of a command: what it does, examples, options, and where it is defined."
    about = inspect.getdoc(command.function) or ""
    seen: set[str] = set()
    config = f"| `--config FILE` | {ABOUT_CONFIG['config']} |\n| `--print-config` | {ABOUT_CONFIG['print_config']} |"
    tables = [f"## Options\n\n{options_table(command.function, seen, command.by_place)}\n{config}"]
    for step in command.steps:
        table = options_table(step, seen)
        if table:
            tables.append(
                "## Options: "
                f"{step.__name__.replace('_', ' ')}\n\n{options_in_code(inspect.getdoc(step).split('. Raises')[0].rstrip('.'))}.\n\n{table}"
            )
    again = (
        f"After Ctrl-C, continue with {f'`{command.resumes}`' if command.resumes.startswith('--') else command.resumes}.\n\n"
        if command.resumes
        else ""
    )
    examples = "\n".join(command.examples)
    end = (
        "See also [command line](../cli.html), which explains the reasons. Exit status: 0 if everything was done, 2 for a mistake in "
        "the input, 1 for a failure."
    )
    return (
        f'---\ntitle: "zskd {name}"\ndescription: "{options_in_code(about)}"\n---\n\n{MADE}\n\n```bash\n{examples}\n```\n\n{again}'
        + "\n\n".join([*tables, end])
        + "\n"
    )


def front(
    page: Path,  # notebook or Quarto's Markdown
    made: dict[Path, str],  # the text of the generated pages
) -> tuple[str, str, str]:  # title, description, and the name of the page without its suffix
    "Title, description and name of a page."
    stem = Path(page_file(page.name)).stem
    if page in made:
        head = yaml.safe_load(made[page].split("---")[1])
        return head["title"], head["description"], stem
    text = "\n".join(c.source for c in nbformat.read(page, as_version=4).cells if c.cell_type == "markdown")
    return re.search(r"^# (.+)$", text, re.M)[1], re.search(r"^> (.+)$", text, re.M)[1], stem


def sections(
    contents: list[Any],  # of the sidebar
    name: str = "Start",  # of the section that holds them
) -> list[tuple[str, list[str]]]:  # sections and their pages
    "The sidebar as a flat list of sections."
    found: list[tuple[str, list[str]]] = [(name, [c for c in contents if isinstance(c, str)])]
    for c in contents:
        if isinstance(c, dict):
            found += sections(c["contents"], c["section"])
    return [(title, pages) for title, pages in found if pages]


def llms_txt(
    made: dict[Path, str],  # as in `front`
) -> str:
    "A list of all pages for programs that read (llmstxt.org); each page also exists as Markdown."
    sidebar = yaml.safe_load((NBS / "sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    parts = [f"# {SITE['title']}\n\n> {SITE['description']}"]
    for title, pages in sections(sidebar):
        lines = []
        for page in pages:
            name, about, stem = front(NBS / page, made)
            lines.append(f"- [{name}]({SITE['site-url']}/{Path(page).with_name(stem + '.md')}): {about}")
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    "The text that each generated file should have."
    commands = {NBS / "commands" / f"{name}.qmd": command_page(name, c) for name, c in COMMANDS.items()}
    return {**commands, NBS / "llms.txt": llms_txt(commands)}


def main() -> int:
    "Write the pages or check them."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which files are out of date")
    check = parser.parse_args().check
    wrong = {file: text for file, text in pages().items() if not file.exists() or file.read_text(encoding="utf-8") != text}
    for file, text in wrong.items():
        if check:
            print(f"{file.relative_to(ROOT)} is not up to date; run python scripts/make_pages.py")
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
