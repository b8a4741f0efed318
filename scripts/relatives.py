"""Compare methods of other papers on one base: the default student on a part of the pool of each task, with a short schedule.

    python scripts/relatives.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

Each method is run twice. First with the same steps on the same rows, so it may ask the teacher more. Then with the same number of teacher
answers, forward and backward counted: the pool is smaller by as many answers as the method asked during training. The student of pairs
learns from the teacher's answers only, without its states, so that the base asks nothing during training; `hidden` is one of the methods.
The script skips what is already among the results, so an interrupted matrix continues where it stopped.
"""

from __future__ import annotations

import argparse
from typing import Any

from six_tasks import ADVERSARIES, RESULTS, balanced, make_teacher, options, run

from zskd.core import read_json
from zskd.methods.index import METHODS
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher

RELATIVES = RESULTS.parent / "relatives"
LEAST = 0.25  # of the rows must remain with the same number of answers
ROWS = {"sst2": 30_000}  # of the base; the other tasks have PAIRS
PAIRS = 20_000
# Changes of the settings of `six_tasks`; the other tasks have PAIR_SCHEDULE.
SCHEDULE = {"sst2": {"steps": 500, "batch_size": 128, "held_out": 2000}}
PAIR_SCHEDULE = {"steps": 400, "hidden": 0.0}
BASE = ("", *(name for name in ADVERSARIES if "-" not in name))  # nothing, and the paper's own adversaries


def main() -> None:
    """Run what is requested and not done yet, one seed after the other."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli", "qnli"])
    parser.add_argument("--methods", nargs="+", default=[*BASE, *METHODS], help="names, joined by + where several are used together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    args.news, args.results = [], RELATIVES
    for seed in args.seeds:
        for name in args.tasks:
            teacher = make_teacher(TASKS[name], args)
            for method in args.methods:
                compare(TASKS[name], teacher, method, seed, args)


def compare(task: Task, teacher: Teacher, method: str, seed: int, args: argparse.Namespace) -> None:
    """A method with the same steps, then with the same answers."""
    rows = ROWS.get(task.name, PAIRS)
    found = result(task, teacher, method, rows, seed, args)
    left = rows - round(asked_in_training(found) / balanced(task).oversample)  # every candidate of a pool costs an answer
    if method and LEAST * rows <= left < rows:
        result(task, teacher, method, left, seed, args)


def result(task: Task, teacher: Teacher, method: str, rows: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The result of a run, which is done if it is missing."""
    start = "convolution" if task.n_texts == 1 else "compact"
    variant = f"{start}-first-{rows}{'+' if method else ''}{method}"
    path = args.results / f"{task.name}-{variant}-{seed}.json"
    if not path.exists():
        args.changes = SCHEDULE.get(task.name, PAIR_SCHEDULE)
        run(task, teacher, variant, seed, args)
    return read_json(path)


def asked_in_training(found: dict[str, Any]) -> int:
    """Questions to the teacher during training, forward and backward."""
    return found["asked"]["forward"] + found["asked"]["backward"]


if __name__ == "__main__":
    main()
