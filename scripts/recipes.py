"""Compare recipes for the pool of a single-text task by agreement with the teacher on other Wikipedia text; no task data.

    python scripts/recipes.py --held-out 'wikipedia_*.txt' --recipes long_random few_words

Each recipe makes a pool from the corpus and trains a student on it for the same number of steps. Teacher and student then answer
`HELD` sentences, spans, clauses and words of the held-out files, drawn without regard to the teacher's answers. The results are
written to `nbs/benchmarks/results/recipes.json`; those of other recipes stay there.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from provenance import made_by

from zskd.builders import TextSample, _between, _pick, _span_of, _trim, builder
from zskd.core import ASSETS, read_json, write_json
from zskd.corpora import join_words, load_corpus, split_words
from zskd.metrics import agreement, mean_kl
from zskd.pools import Pool, Recipe, ood_pool
from zskd.students import Student
from zskd.tasks import TASKS, Row
from zskd.teachers import Teacher
from zskd.training import Distiller
from zskd.vocabularies import whole_words

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "recipes.json"
NATURAL = {"sentence": 0.4, "span": 0.4, "clause": 0.15, "word": 0.05}
HELD = 3000
OWN: list[str] = []  # words that the teacher's vocabulary holds whole
RECIPES: dict[str, dict[str, float]] = {
    "long_random": {"sentence": 0.1, "span": 0.55, "clause": 0.15, "word": 0.05, "random_words": 0.15},
    "few_words": {"sentence": 0.1, "span": 0.45, "clause": 0.15, "word": 0.05, "few_words": 0.25},
    "replaced": {"sentence": 0.1, "span": 0.25, "clause": 0.1, "word": 0.05, "span_replaced": 0.35, "few_words": 0.15},
    "own_replaced": {"sentence": 0.1, "span": 0.25, "clause": 0.1, "word": 0.05, "span_own": 0.35, "own_words": 0.15},
    "mostly_own": {"sentence": 0.05, "span": 0.1, "clause": 0.05, "word": 0.05, "span_own": 0.6, "own_words": 0.15},
}


def _replaced(rng: random.Random, text: TextSample, words: list[str]) -> Row:
    """A span of 3 to 25 words, of which 15, 30 or 50 % become others."""
    span = _span_of(rng, split_words(text.sentences[text.random_index(rng)]), 3, 25)
    share = rng.choice((0.15, 0.3, 0.5))
    return (_trim([_pick(rng, words) if rng.random() < share else word for word in span]),)


@builder(n_texts=1)
def _span_replaced(rng: random.Random, text: TextSample) -> Row | None:
    "a span in which some words become words of the corpus' vocabulary"
    return _replaced(rng, text, text.vocabulary)


@builder(n_texts=1)
def _span_own(rng: random.Random, text: TextSample) -> Row | None:
    "a span in which some words become words of the teacher's vocabulary"
    return _replaced(rng, text, OWN)


@builder(n_texts=1, endless=True)
def _own_words(rng: random.Random, text: TextSample) -> Row | None:
    "2 to 10 words of the teacher's vocabulary"
    return (join_words(_pick(rng, OWN) for _ in range(_between(rng, 2, 10))),)


def main() -> None:
    """Try the requested recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", required=True, nargs="+", help="text files that the corpus does not hold")
    parser.add_argument("--corpus", nargs="+", default=["sample"], help="text files (default: the embedded sample)")
    parser.add_argument("--teacher", default=str(ASSETS / "teacher"), help="folder of an SST-2 teacher (default: the embedded one)")
    parser.add_argument("--recipes", nargs="+", default=["long_random", "few_words"], choices=list(RECIPES))
    parser.add_argument("--rows", "--n", dest="n", type=int, default=24_000, help="rows of the pool (default 24000)")
    parser.add_argument("--steps", type=int, default=350, help="of 256 rows (default 350)")
    args = parser.parse_args()
    teacher = Teacher.load(args.teacher).for_task(TASKS["sst2"])
    OWN.extend(w for w in whole_words(teacher.tokenizer)[1] if w.isascii())
    held = ood_pool("sst2", load_corpus(args.held_out), HELD, None, Recipe(NATURAL, balance=False), seed=77)
    truth = teacher.logits(held)
    tried = read_json(RESULT)["tried"] if RESULT.exists() else {}
    for name in args.recipes:
        tried[f"{name}, {Path(args.teacher).name}"] = {**attempt(teacher, name, held, truth, args), **made_by()}
        command = f"python scripts/recipes.py --held-out {' '.join(Path(f).name for f in args.held_out)} --recipes {' '.join(RECIPES)}"
        write_json(RESULT, {"command": command, "tried": tried})
    sys.stdout.write(RESULT.read_text("utf-8"))


def attempt(teacher: Teacher, name: str, held: Pool, truth: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """Try one recipe: make its pool, train a student, and score it on the held-out rows."""
    recipe = replace(Recipe.for_task(TASKS["sst2"]), builders=RECIPES[name], oversample=1.3)
    began = time.process_time()
    pool = ood_pool("sst2", load_corpus(args.corpus), args.n, teacher, recipe)
    labelled = time.process_time()
    student = Student.create(teacher, ratio=30, corpus=[row[0] for row in pool.rows()])
    with tempfile.TemporaryDirectory() as out:
        run = Distiller(teacher, student, pool, out, steps=args.steps)
        logits = run.fit().logits(held.rows())
    trained = time.process_time()
    names = np.array(held.columns["builder"])
    return {
        "recipe": RECIPES[name],
        "rows": args.n,
        "steps": args.steps,
        "shape": student.notes["shape"],
        "pieces_per_row": round(float(run.lengths.mean()), 1),
        "agreement": agreement(logits, truth),
        "kl": mean_kl(truth, logits),
        "agreement_by_builder": {b: agreement(logits[names == b], truth[names == b]) for b in NATURAL},
        "cpu_seconds": {"pool": round(labelled - began), "student": round(trained - labelled)},
    }


if __name__ == "__main__":
    main()
