"""What each objective of general distillation brings: short runs, and a zero-shot student of MNLI from each.

    python scripts/objectives.py --base ENCODER --data GLUE_FOLDER --corpus wikipedia_*.txt --work runs/six

All arms have the shape of `compact-small`, the same rows, order of batches and number of steps; only the objectives differ. Arms that
already have a result are skipped. `--arms words` leaves the encoder of masked words in the work folder, for `scripts/six_tasks.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from provenance import made_by
from six_tasks import COMPACT_SHAPE, PAIR_TRAINING, make_rows, make_teacher, shown

from zskd.core import read_json, write_json
from zskd.corpora import load_corpus
from zskd.pretraining import Pretrainer, mixed_text, objectives, open_encoder
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.training import Distiller

RESULTS = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "objectives.json"
ROWS = 300_000  # as for the encoders in the package
ARMS = {  # weights of `objectives`; None trains nothing
    "random": None,
    "sliced": None,
    "states": {"sentences": 0.0, "states": 1.0},
    "states and sentences": {"sentences": 0.1, "states": 1.0},
    "states and more sentences": {"sentences": 1.0, "states": 1.0},
    "states and relations": {"sentences": 0.0, "states": 1.0, "relations": 1.0},
    "states and words": {"sentences": 0.0, "states": 1.0, "words": 0.1},
    "sentences": {"sentences": 1.0, "states": 0.0},
    "words": {"sentences": 0.0, "states": 0.0, "words": 1.0, "share": 0.15},
}
BLANK = {"random", "words"}  # arms that start from random weights, so that they hold nothing of the encoder


def main() -> None:
    """Run the requested arms that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder or hub name of the encoder")
    parser.add_argument("--data", required=True, help="folder with the tasks' TSV files; read for MNLI's score only")
    parser.add_argument(
        "--corpus", required=True, nargs="+", help="text files of the general distillation; MNLI's pool is made from the first"
    )
    parser.add_argument("--work", default="runs/six", type=Path, help="folder of `scripts/six_tasks.py`")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=3000, help="of general distillation")
    args = parser.parse_args()
    encoder, rows = open_encoder(args.base), mixed_text(load_corpus(args.corpus), ROWS)
    command, args.corpus = shown(["python", *sys.argv], args), args.corpus[:1]
    for arm in args.arms:
        done = read_json(RESULTS) if RESULTS.exists() else {}
        if arm not in done:
            made = measured(arm, encoder, rows, args)
            write_json(RESULTS, {**(read_json(RESULTS) if RESULTS.exists() else {}), arm: {**made, "command": command, **made_by()}})
            print(f"{arm}: {made['pct_of_teacher']:.1f} % of MNLI's teacher", flush=True)


def measured(arm: str, encoder, rows, args: argparse.Namespace) -> dict:
    """Run one arm: distil its encoder, distil a student of MNLI from it, and return the scores of both."""
    task = TASKS["mnli"]
    start = Student.create(
        encoder,
        init="random" if arm in BLANK else "teacher",
        shape=COMPACT_SHAPE,
        labels=encoder.labels,
        n_texts=2,
        corpus=[t for row in rows.rows(range(50_000)) for t in row],
        sensitivity=False,
    )
    best = None
    if ARMS[arm] is not None:
        out = args.work / ("words" if arm == "words" else f"objectives/{arm.replace(' ', '-')}")
        run = Pretrainer(
            encoder,
            start,
            rows,
            out,
            resume=out.exists(),
            cache=args.work / "states",
            batch_size=64,
            steps=args.steps,
            lr=2e-3,
            precision="auto",
            evaluate_every=args.steps,
            **objectives(**ARMS[arm]),
        )
        run.fit()
        init, best = out / "encoder", run.best
    else:
        init = start.save(args.work / "objectives" / arm)
    teacher = make_teacher(task, args)
    pool = make_rows(task, teacher, "wiki", args)
    student = Student.create(teacher, init=init, n_texts=2)
    folder = args.work / "runs" / f"objective-{arm.replace(' ', '-')}"
    distiller = Distiller(
        teacher, student, pool, folder, task=task, cache=args.work / "logits", resume=folder.exists(), seed=0, **PAIR_TRAINING
    )
    distiller.fit()
    report = distiller.report(task.validation(args.data)).data
    return {
        "weights": ARMS[arm],
        "start": "random" if arm in BLANK else "sliced from the encoder",
        "steps": args.steps if ARMS[arm] else 0,
        "sentences": best,
        "held_out": distiller.best,
        "pct_of_teacher": report["pct_of_teacher"],
        "agreement": report["agreement"],
    }


if __name__ == "__main__":
    main()
