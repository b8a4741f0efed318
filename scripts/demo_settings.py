"""Compare sizes of the demo's pool by agreement with the teacher on other Wikipedia text; no task data.

    python scripts/demo_settings.py --held-out 'wikipedia_*.txt'

The teacher answers the candidates of the largest pool once. Each setting takes as many candidates as it needs, balances its pool, and
trains a student. All students then answer `HELD` sentences, spans, clauses and words of the held-out files. The results of all settings
are written to `nbs/benchmarks/results/demo_settings.json`, with the processor time of each part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from provenance import made_by
from recipes import HELD, NATURAL

from zskd.core import ASSETS, write_json
from zskd.corpora import load_corpus
from zskd.metrics import agreement, mean_kl
from zskd.pools import Recipe, _draw, balance, ood_pool
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.training import Distiller

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "demo_settings.json"
SETTINGS = [  # rows kept, candidates for each, epochs
    (26_000, 1.5, 5),
    (20_000, 1.3, 6.5),
    (20_000, 1.1, 6.5),
    (16_000, 1.5, 8),
    (16_000, 1.25, 8),
    (16_000, 1.25, 6),
    (12_000, 1.5, 8),
]


def main() -> None:
    """Try all settings with one seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", required=True, nargs="+", help="text files that the corpus does not hold")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    task, corpus = TASKS["sst2"], load_corpus("sample")
    teacher = Teacher.load(ASSETS / "teacher", precision="fp32").for_task(task)
    recipe = Recipe.for_task(task)
    held = ood_pool(task, load_corpus(args.held_out), HELD, None, Recipe(NATURAL, balance=False), seed=77)
    truth = teacher.logits(held)
    most = max(round(n * more) for n, more, _ in SETTINGS)
    began = time.process_time()
    drawn, _ = _draw(task, corpus, most, most, recipe, args.seed)
    rows = [row for row, _ in drawn]
    logits = teacher.logits(rows)
    labelling = (time.process_time() - began) / most
    tried = []
    for n, more, epochs in SETTINGS:
        asked = np.random.default_rng(args.seed).permutation(most)[: round(n * more)]
        chosen = asked[balance(logits[asked], n, recipe.bins, recipe.spread)]
        began = time.process_time()
        student = Student.create(teacher, ratio=30, corpus=[rows[i][0] for i in chosen], seed=args.seed)
        known = {rows[i]: logits[i] for i in chosen}
        answers = Teacher(teacher.labels, lambda asked, known=known: np.stack([known[r] for r in asked]), "known", "", 1, teacher.n_params)
        with tempfile.TemporaryDirectory() as out:
            run = Distiller(answers, student, [rows[i] for i in chosen], out, epochs=epochs, batch_size=256, lr=3e-3, seed=args.seed)
            said = run.fit().logits(held.rows())
        tried.append(
            {
                "rows": n,
                "candidates": len(asked),
                "epochs": epochs,
                "steps": run.steps,
                "agreement": agreement(said, truth),
                "kl": mean_kl(truth, said),
                "cpu_seconds": {"answers": round(labelling * len(asked)), "student": round(time.process_time() - began)},
            }
        )
        command = f"python scripts/demo_settings.py --held-out {' '.join(Path(f).name for f in args.held_out)} --seed {args.seed}"
        write_json(RESULT, {"command": command, **made_by(), "held_out_rows": HELD, "tried": tried})
    sys.stdout.write(RESULT.read_text("utf-8"))


if __name__ == "__main__":
    main()
