"""Compare shapes of a student under one budget by agreement with the teacher on text that is not in the pool; no task data.

    python scripts/shapes.py --teacher TEACHER_FOLDER --task sst2 --corpus wiki_00.txt --held-out wiki_01.txt --shapes 12681x40x1 30522x20x1

Write a shape as PIECESxNUMBERSxLAYERS, followed by `s` if all layers share one set of weights. Its layers are as wide as the budget
allows. All students learn from the same pool, for the same number of steps. The results are written to
`nbs/benchmarks/results/shapes.json`; those of other shapes stay there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from provenance import made_by

from zskd.core import read_json, write_json
from zskd.corpora import load_corpus
from zskd.metrics import agreement, mean_kl
from zskd.pools import Pool, Recipe, ood_pool
from zskd.shapes import Shape, candidate_shapes
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.training import Distiller

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "shapes.json"
HELD = 3000


def main() -> None:
    """Try the requested shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder of the teacher")
    parser.add_argument("--task", required=True, choices=list(TASKS))
    parser.add_argument("--corpus", nargs="+", help="text files for the pool")
    parser.add_argument("--pool", help="folder of a pool, instead of --corpus")
    parser.add_argument("--held-out", required=True, nargs="+", help="other text files")
    parser.add_argument("--shapes", required=True, nargs="+")
    parser.add_argument("--ratio", type=float, default=30, help="how many times smaller the student must be (default 30)")
    parser.add_argument("--rows", "--n", dest="n", type=int, default=80_000, help="rows of the pool (default 80000)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, help="rows per step (default: that of the Distiller)")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--cache", help="folder of the teacher's logits")
    args = parser.parse_args()
    task = TASKS[args.task]
    teacher = Teacher.load(args.teacher).for_task(task)
    pool = Pool.load(args.pool) if args.pool else ood_pool(task, load_corpus(args.corpus), args.n, teacher, seed=0, cache=args.cache)
    held = ood_pool(task, load_corpus(args.held_out), HELD, None, replace(Recipe.for_task(task), balance=False), seed=77)
    for text in args.shapes:
        pieces, numbers, layers = map(int, text.rstrip("s").split("x"))
        budget, expansion = int(teacher.n_params / args.ratio), 3 if task.n_texts == 1 else 2
        fitting = candidate_shapes(budget, task.n_labels, [pieces], [numbers], [layers], [expansion])
        shape = next(shape for shape in fitting if (shape.groups < shape.layers) == text.endswith("s"))
        tried = read_json(RESULT)["tried"] if RESULT.exists() else {}
        found = {"command": command(args, text), **attempt(teacher, shape, pool, held, args), **made_by()}
        write_json(RESULT, {"tried": {**tried, f"{args.task} {text}": found}})
        print(text, found, file=sys.stderr, flush=True)


def command(args: argparse.Namespace, shape: str) -> str:
    """The command line that tries this shape alone, with folders replaced by general names."""
    words = ["python", "scripts/shapes.py", "--teacher", Path(args.teacher).name, "--task", args.task]
    words += ["--pool", Path(args.pool).name] if args.pool else ["--corpus", *(Path(f).name for f in args.corpus), "--rows", str(args.n)]
    words += ["--held-out", *(Path(f).name for f in args.held_out), "--ratio", f"{args.ratio:g}", "--steps", str(args.steps)]
    words += ["--batch-size", str(args.batch_size)] if args.batch_size else []
    return shlex.join([*words, "--lr", f"{args.lr:g}", "--precision", args.precision, "--shapes", shape])


def attempt(teacher: Teacher, shape: Shape, pool: Pool, held: Pool, args: argparse.Namespace) -> dict[str, Any]:
    """One student of this shape, and how it answers the held-out rows."""
    truth = teacher.logits(held, cache=args.cache)
    texts = [text for row in pool.rows(range(min(len(pool), 50_000))) for text in row]
    student = Student.create(teacher, shape=shape, corpus=texts, n_texts=TASKS[args.task].n_texts)
    with tempfile.TemporaryDirectory() as out:
        began = time.process_time()
        settings = {"steps": args.steps, "batch_size": args.batch_size, "lr": args.lr, "precision": args.precision}
        run = Distiller(teacher, student, pool, out, cache=args.cache, **settings)
        logits = run.fit().logits(held.rows())
    return {
        "shape": student.notes["shape"],
        "params": student.n_params,
        "rows": len(pool),
        "steps": args.steps,
        "pieces_per_row": round(float(run.lengths.mean()), 1),
        "agreement": agreement(logits, truth),
        "kl": mean_kl(truth, logits),
        "cpu_seconds": round(time.process_time() - began),
    }


if __name__ == "__main__":
    main()
