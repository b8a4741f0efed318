"""Compare methods of other papers on one base: the default student, pool and steps of each of the six tasks.

    python scripts/relatives.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

Each method is run twice. First with the same steps on the same rows, so it may ask the teacher more. Then with the same number of teacher
answers, forward and backward counted: the pool is smaller by as many answers as the method asked during training. The script skips what
is already among the results of `scripts/six_tasks.py`, so an interrupted matrix continues where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from six_tasks import ADVERSARIES, PAIRS, POOL, RESULTS, balanced, make_teacher, run

from zskd.core import read_json
from zskd.methods.index import METHODS
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher

LEAST = 0.25  # of the rows must remain with the same number of answers
BASE = ("", *(name for name in ADVERSARIES if "-" not in name))  # nothing, and the paper's own adversaries


def main() -> None:
    """Run what is requested and not done yet, one seed after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder or hub name of the encoder that becomes the teachers")
    parser.add_argument("--data", required=True, help="folder with the tasks' TSV files")
    parser.add_argument("--corpus", required=True, nargs="+", help="text files")
    parser.add_argument("--work", default="runs/six", type=Path, help="folder for teachers, pools, logits and runs")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli", "qnli"])
    parser.add_argument("--methods", nargs="+", default=[*BASE, *METHODS], help="names, joined by + where several are used together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    args.news = []
    for seed in args.seeds:
        for name in args.tasks:
            teacher = make_teacher(TASKS[name], args)
            for method in args.methods:
                compare(TASKS[name], teacher, method, seed, args)


def compare(task: Task, teacher: Teacher, method: str, seed: int, args: argparse.Namespace) -> None:
    """A method with the same steps, then with the same answers."""
    extra = f"+{method}" if method else ""
    found = result(task, teacher, f"{start(task)}wiki{extra}", seed, args)
    rows = rows_for(task, found)
    if method and LEAST * found["rows"] <= rows < found["rows"]:
        result(task, teacher, f"{start(task)}first-{rows}{extra}", seed, args)


def start(task: Task) -> str:
    """The prefix of the default student: single texts start from the teacher, pairs from the compact encoder."""
    return "" if task.n_texts == 1 else "compact-"


def result(task: Task, teacher: Teacher, variant: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The result of a run, which is done if it is missing."""
    path = RESULTS / f"{task.name}-{variant}-{seed}.json"
    if not path.exists():
        run(task, teacher, variant, seed, args)
    return read_json(path)


def asked_in_training(found: dict[str, Any]) -> int:
    """Questions to the teacher during training, forward and backward."""
    asked = found.get("asked")  # results of version 0.1.0 count an adversary's questions only
    return asked["forward"] + asked["backward"] if asked else found["report"]["queries"]["adversarial"] or 0


def rows_for(task: Task, found: dict[str, Any]) -> int:
    """Rows of a pool that costs as many answers less as a run asked during training. Every candidate costs an answer."""
    return POOL.get(task.name, PAIRS) - round(asked_in_training(found) / balanced(task).oversample)


if __name__ == "__main__":
    main()
