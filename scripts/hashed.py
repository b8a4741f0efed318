"""A word table whose rows the pieces share, against a row for each piece, under the same budget.

    python scripts/hashed.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

All students learn from the first `ROWS` rows of the pool of `scripts/six_tasks.py`, for one epoch, with the settings of
`scripts/relatives.py`. The script skips what is already among the results.
"""

from __future__ import annotations

import argparse
from typing import Any

from provenance import made_by
from relatives import schedule
from six_tasks import RESULTS, StoredAnswers, first, make_teacher, options, settings_of, shown

from zskd.core import write_json
from zskd.evaluation import evaluate
from zskd.pools import Pool
from zskd.students import Student
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher
from zskd.training import Distiller

HASHED = RESULTS.parent / "hashed"
ROWS = 20_000
TABLES = {30: [0, 15_000, 8000], 100: [0, 6000]}  # rows of the table by how much smaller the student is; 0: one for each piece


def main() -> None:
    """Run what is requested and not done yet, one seed after the other."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2"])
    parser.add_argument("--families", nargs="+", default=["convolution", "static"])
    parser.add_argument("--ratios", nargs="+", type=int, default=list(TABLES))
    parser.add_argument("--tables", nargs="+", type=int, help="rows of the table (default: those of the ratio)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    args.news = []
    for name in args.tasks:
        teacher = make_teacher(TASKS[name], args)
        pool = first(TASKS[name], teacher, ROWS, args)
        for seed in args.seeds:
            for family in args.families:
                for ratio in args.ratios:
                    for rows in args.tables or TABLES[ratio]:
                        if not (HASHED / f"{name}-{family}-{ratio}-{rows}-{seed}.json").exists():
                            compare(TASKS[name], teacher, pool, family, ratio, rows, seed, args)


def compare(task: Task, teacher: Teacher, pool: Pool, family: str, ratio: int, rows: int, seed: int, args: argparse.Namespace) -> None:
    """One student: make it, distil it, score it, write its result file."""
    name = f"{task.name}-{family}-{ratio}-{rows}-{seed}"
    texts, out = [text for row in pool.rows() for text in row], args.work / "hashed" / name
    kind: dict[str, Any] = {"ratio": ratio, "family": family, "hash_rows": rows or None, "init": "teacher"}
    student = Student.create(teacher, **kind, corpus=texts, seed=seed, n_texts=task.n_texts)
    settings = {**settings_of(task, "wiki"), **schedule(task, "base", ROWS), "seed": seed}
    run = Distiller(teacher, student, pool, out, task=task, cache=args.work / "logits", resume=out.exists(), **settings)
    report = evaluate(StoredAnswers(teacher, args.work / "logits"), run.fit(), task.validation(args.data), timed=0).data
    words = ["python", "scripts/hashed.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus, "--tasks", task.name]
    words += ["--families", family, "--ratios", str(ratio), "--tables", str(rows), "--seeds", str(seed)]
    names = ("task", "metric", "n", "teacher", "student", "compression", "pct_of_teacher", "agreement", "kl")
    facts = {"family": family, "ratio": ratio, "table": rows, "seed": seed, "rows": ROWS, "params": student.n_params}
    about = {"shape": student.notes["shape"], "start": student.notes["init"], "settings": run.settings.as_dict(), "held_out": run.best}
    kept = {k: report[k] for k in names}
    write_json(HASHED / f"{name}.json", {"command": shown(words, args), **facts, **about, "report": kept, **made_by()})
    print(f"{name}: {report['pct_of_teacher']:.1f} % of the teacher, held out {run.best['agreement']:.3f}", flush=True)


if __name__ == "__main__":
    main()
