"""What 8-bit weights cost a student: its ONNX export with and without them, on the same texts.

    python scripts/int8.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

A student of each family is trained for one epoch on `ROWS` rows of the pool of `scripts/six_tasks.py`. Then both exports answer the next
`HELD` rows, which it was not trained on, and the task's development set. The script skips what is already among the results.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from provenance import made_by
from relatives import schedule
from six_tasks import RESULTS, StoredAnswers, first, make_teacher, options, settings_of, shown

from zskd.core import write_json
from zskd.evaluation import evaluate
from zskd.export import export_onnx
from zskd.metrics import agreement
from zskd.pools import Pool
from zskd.shapes import PREFERENCES
from zskd.students import Student
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher
from zskd.training import Distiller

INT8 = RESULTS.parent / "int8"
ROWS, HELD = 15_000, 5_000


def main() -> None:
    """Measure what is requested and not done yet."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli"])
    parser.add_argument("--families", nargs="+", default=list(PREFERENCES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    args.news = []
    for name in args.tasks:
        teacher = make_teacher(TASKS[name], args)
        pool = first(TASKS[name], teacher, ROWS + HELD, args)
        for seed in args.seeds:
            for family in args.families:
                file = INT8 / f"{name}-{family}-{seed}.json"
                if not file.exists():
                    found = measure(TASKS[name], teacher, pool, family, seed, args)
                    write_json(file, {"command": called(args, name, family, seed), **found, **made_by()})
                    print(name, family, seed, {k: v["agreement"] for k, v in found["answers"].items()}, flush=True)


def measure(task: Task, teacher: Teacher, pool: Pool, family: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One student: train it, export it, compare the exports."""
    folder = args.work / "int8" / f"{task.name}-{family}-{seed}"
    run = trained(task, teacher, pool, family, seed, folder, args)
    exports, examples = export_onnx(run.distilled, folder / "onnx", int8=True), task.validation(args.data)
    held = range(ROWS, ROWS + HELD)
    rows, answers = pool.rows(held), [pool.logits[i] for i in held]
    logits = {precision: export.logits(rows) for precision, export in exports.items()}
    reports = {p: evaluate(StoredAnswers(teacher, args.work / "logits"), export, examples, timed=0).data for p, export in exports.items()}
    return {
        "task": task.name,
        "family": family,
        "seed": seed,
        "shape": run.distilled.notes["shape"],
        "settings": run.settings.as_dict(),
        "rows": ROWS,
        "held": HELD,
        "examples": reports["fp32"]["n"],
        "metric": task.metric,
        "teacher": reports["fp32"]["teacher"]["score"],
        "same_answers": agreement(logits["fp32"], logits["int8"]),
        "answers": {
            precision: {
                "agreement": agreement(logits[precision], answers),
                "score": report["student"]["score"],
                "pct_of_teacher": report["pct_of_teacher"],
                "bytes": exports[precision].file.stat().st_size,
            }
            for precision, report in reports.items()
        },
    }


def trained(task: Task, teacher: Teacher, pool: Pool, family: str, seed: int, folder: Path, args: argparse.Namespace) -> Distiller:
    """A student after one epoch on the first rows of the pool."""
    part = replace(pool, dataset=pool.dataset.select(range(ROWS)))
    texts = [text for row in part.rows() for text in row]
    student = Student.create(teacher, ratio=30, family=family, init="teacher", corpus=texts, seed=seed, n_texts=task.n_texts)
    settings = {**settings_of(task, "wiki"), **schedule(task, "base", ROWS), "seed": seed}
    out = folder / "run"
    run = Distiller(teacher, student, part, out, task=task, cache=args.work / "logits", resume=out.exists(), **settings)
    run.fit()
    return run


def called(args: argparse.Namespace, task: str, family: str, seed: int) -> str:
    """The command for this student alone, without this machine's folders."""
    words = ["python", "scripts/int8.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus]
    return shown([*words, "--tasks", task, "--families", family, "--seeds", str(seed)], args)


if __name__ == "__main__":
    main()
