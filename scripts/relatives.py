"""Compare methods of other papers, and the paper's own adversaries, on one base: a student of convolutions, trained for one epoch.

    python scripts/relatives.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

Every method is switched on alone, with the rows and the steps of the base. Most ask the teacher during training. So the base is also run
on more rows (`MORE`), one epoch again: this curve says what the same number of answers gives without any method. The student learns from
the teacher's answers only, without its states, so that the base asks nothing during training; `hidden` is one of the methods.
The script skips what is already among the results, so an interrupted matrix continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from six_tasks import ADVERSARIES, RESULTS, make_teacher, options, run

from zskd.errors import UserError
from zskd.methods.index import METHODS
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher

RELATIVES = RESULTS.parent / "relatives"
ROWS = {"sst2": 20_000}  # of the base; the other tasks have PAIRS
PAIRS = 10_000
BATCH = {"sst2": 64}  # the other tasks have PAIR_BATCH
PAIR_BATCH = 32
HELD_OUT = 1000
MORE = (1.0, 1.25, 1.5, 2.0, 3.0)  # times the rows, and as many times the steps
PAPER = tuple(name for name in ADVERSARIES if "-" not in name)  # the paper's own adversaries


def main() -> None:
    """Run what is requested and not done yet, one seed after the other."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli", "qnli"])
    parser.add_argument(
        "--methods", nargs="+", default=["base", *METHODS, *PAPER], help="names, joined by + where several are used together"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--more", nargs="+", type=float, default=MORE, help="the base's numbers of rows, as multiples")
    args = parser.parse_args()
    args.news, args.results = [], RELATIVES
    for seed in args.seeds:
        for name in args.tasks:
            teacher = make_teacher(TASKS[name], args)
            for method in args.methods:
                compare(TASKS[name], teacher, method, seed, args)


def compare(task: Task, teacher: Teacher, method: str, seed: int, args: argparse.Namespace) -> None:
    """The runs of one method, or of the base on each number of rows, that are missing. A method that refuses this student is named."""
    args.start_rows = ROWS.get(task.name, PAIRS)  # every run has the same start
    for variant, rows in variants(task, method, args.more):
        if not (args.results / f"{task.name}-{variant}-{seed}.json").exists():
            args.changes = schedule(task, method, rows)
            try:
                run(task, teacher, variant, seed, args)
            except UserError as e:
                print(f"{task.name} {variant} {seed}: {e}", flush=True)


def variants(task: Task, method: str, more: Sequence[float] = MORE) -> list[tuple[str, int]]:
    """Names of runs as in `six_tasks`, and their rows."""
    rows = ROWS.get(task.name, PAIRS)
    if method == "base":
        return [(f"convolution-first-{round(rows * times)}", round(rows * times)) for times in more]
    return [(f"convolution-first-{rows}+{method}", rows)]


def schedule(task: Task, method: str, rows: int) -> dict[str, Any]:
    """Settings of one epoch over so many rows. The weight of the teacher's states is 0, unless the method is about them."""
    size, states = BATCH.get(task.name, PAIR_BATCH), None if "hidden" in method.split("+") else 0.0
    return {"batch_size": size, "steps": rows // size, "held_out": HELD_OUT, "hidden": states}


if __name__ == "__main__":
    main()
