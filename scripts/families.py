"""Which small classifier? zskd's three families and what one could use instead, all from one pool with the answers of one teacher.

    python scripts/families.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

Every classifier is made without task data, and scored on the task's development set once, at the end:

    convolution, attention, static   students of zskd, of at most 1/30 of the teacher's size
    tfidf          TF-IDF of words and pairs of words, and a logistic regression (scikit-learn)
    hashed         the same with hashed n-grams of up to three words
    model2vec      a static model of the teacher's encoder, with as many numbers per word as fit into the budget, and a small network on it
    model2vec-256  the same with 256 numbers, ten times the budget
    int8           the teacher itself with 8-bit weights (ONNX Runtime): what one would do without distillation

The classifiers of scikit-learn learn the teacher's class of each row. `--speed` measures how fast all of them are, one after the other in
one run with one thread. Run it on an otherwise idle machine. model2vec has to be installed: `pip install "model2vec[distill]"`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import made_by
from six_tasks import PAIRS, RESULTS, StoredAnswers, first, make_teacher, options, shown
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from zskd.core import write_json
from zskd.corpora import load_corpus
from zskd.evaluation import evaluate
from zskd.export import export_onnx
from zskd.pools import Pool
from zskd.shapes import PREFERENCES
from zskd.students import Student
from zskd.tasks import TASKS, Row, Task
from zskd.teachers import Teacher
from zskd.training import Distiller

FAMILIES = RESULTS.parent / "families"
RIVALS = ("tfidf", "hashed", "model2vec", "model2vec-256", "int8")
ROWS = {"sst2": 200_000}  # of the pool; the other tasks have PAIRS
SETTINGS: dict[str, dict[str, Any]] = {  # of the `Distiller`; the other tasks have PAIR_SETTINGS
    "sst2": {"steps": 1500, "batch_size": 256, "lr": 3e-3, "held_out": 5000, "hidden": 0.0},
}
PAIR_SETTINGS: dict[str, Any] = {"steps": 1000, "batch_size": 64, "lr": 2e-3, "hidden": 0.0}
TEXTS = 4096  # that are answered in bulk
SINGLE = 300  # that are answered one at a time


def main() -> None:
    """Make what is requested and not there yet, then measure its speed if asked to."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2"])
    parser.add_argument("--kinds", nargs="+", default=[*PREFERENCES, *RIVALS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the students; the others have no seed")
    parser.add_argument("--speed", action="store_true", help="measure how fast the classifiers are that have been made")
    args = parser.parse_args()
    args.news, args.results = [], FAMILIES
    for name in args.tasks:
        teacher = make_teacher(TASKS[name], args)
        if args.speed:
            measure(TASKS[name], teacher, args)
            continue
        for kind in args.kinds:
            for seed in args.seeds if kind in PREFERENCES else [0]:
                if not (FAMILIES / f"{name}-{kind}-{seed}.json").exists():
                    make(TASKS[name], teacher, kind, seed, args)


@dataclass
class Fitted:
    """A classifier with scikit-learn's interface, as zskd scores one."""

    model: Any  # with `predict_proba`
    labels: tuple[str, ...]
    n_params: int
    name: str

    def logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Log-probabilities [n, C]."""
        return np.log(np.clip(self.model.predict_proba([" [SEP] ".join(row) for row in rows]), 1e-9, 1))


def make(task: Task, teacher: Teacher, kind: str, seed: int, args: argparse.Namespace) -> None:
    """One classifier: train it, score it, keep it and its result."""
    pool = first(task, teacher, ROWS.get(task.name, PAIRS), args)
    folder = args.work / "families" / f"{task.name}-{kind}-{seed}"
    began = time.perf_counter()
    if kind in PREFERENCES:
        model, about = student(task, teacher, pool, kind, seed, folder, args)
    elif kind == "int8":
        model, about = export_onnx(Student.load(args.work / "teachers" / task.name), folder, int8=True)["int8"], {}
    else:
        model, about = fitted(teacher, pool, kind), {}
    seconds = time.perf_counter() - began
    report = evaluate(StoredAnswers(teacher, args.work / "logits"), model, task.validation(args.data), timed=0).data
    names = ("task", "metric", "n", "teacher", "student", "compression", "pct_of_teacher", "agreement", "kl", "scores", "baselines")
    kept = {k: report[k] for k in names}
    command = called(args, "--tasks", task.name, "--kinds", kind, "--seeds", str(seed))
    facts = {"kind": kind, "seed": seed, "rows": len(pool), "params": model.n_params, "seconds": seconds}
    write_json(FAMILIES / f"{task.name}-{kind}-{seed}.json", {"command": command, **facts, **about, "report": kept, **made_by()})
    print(f"{task.name} {kind} {seed}: {report['pct_of_teacher']:.1f} % of the teacher, agreement {report['agreement']:.3f}", flush=True)


def student(
    task: Task, teacher: Teacher, pool: Pool, family: str, seed: int, folder: Path, args: argparse.Namespace
) -> tuple[Student, dict[str, Any]]:
    """A student of one of zskd's families, and what is recorded of it."""
    texts = [text for row in pool.rows(range(min(len(pool), 50_000))) for text in row]
    made = Student.create(teacher, ratio=30, family=family, corpus=texts, seed=seed, n_texts=task.n_texts)
    settings = {**SETTINGS.get(task.name, PAIR_SETTINGS), "seed": seed}
    run = Distiller(teacher, made, pool, folder, task=task, cache=args.work / "logits", resume=folder.exists(), **settings)
    return run.fit(), {"shape": made.notes["shape"], "start": made.notes["init"], "settings": run.settings.as_dict(), "held_out": run.best}


def fitted(teacher: Teacher, pool: Pool, kind: str) -> Fitted:
    """A classifier of scikit-learn, trained on the teacher's class of each row."""
    texts = [" [SEP] ".join(row) for row in pool.rows()]
    classes = np.asarray(pool.logits).argmax(1)
    budget = int(teacher.n_params / 30)
    if kind.startswith("model2vec"):
        return static_vectors(teacher, texts, classes, 256 if kind.endswith("256") else budget // len(teacher.tokenizer))
    columns = len(teacher.labels) if len(teacher.labels) > 2 else 1
    size = budget // (columns + 1)  # a weight of each word in the table, and one for each class
    words = TfidfVectorizer(ngram_range=(1, 2), max_features=size, sublinear_tf=True)
    hashed = HashingVectorizer(ngram_range=(1, 3), n_features=budget // columns, alternate_sign=False)
    model = make_pipeline(words if kind == "tfidf" else hashed, LogisticRegression(C=4.0, max_iter=300))
    model.fit(texts, classes)
    n = model[-1].coef_.size + model[-1].intercept_.size + (len(model[0].vocabulary_) if kind == "tfidf" else 0)
    return Fitted(model, teacher.labels, n, kind)


class Vectors:
    """A model of model2vec as a step of a pipeline."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, texts: Sequence[str], classes: Any = None) -> Vectors:
        """There is nothing to fit."""
        return self

    def transform(self, texts: Sequence[str]) -> np.ndarray:
        """One vector for each text."""
        return self.model.encode(list(texts))


def static_vectors(teacher: Teacher, texts: list[str], classes: np.ndarray, size: int) -> Fitted:
    """A model of model2vec with a network of one layer on it."""
    from model2vec.distill import distill_from_model

    base = distill_from_model(teacher.model.base_model, teacher.tokenizer, pca_dims=size, quantize_to="float32")
    model = make_pipeline(Vectors(base), MLPClassifier((64,), early_stopping=True, random_state=0))
    model.fit(texts, classes)
    n = base.embedding.size + sum(w.size for w in [*model[-1].coefs_, *model[-1].intercepts_])
    return Fitted(model, teacher.labels, n, f"model2vec-{size}")


def measure(task: Task, teacher: Teacher, args: argparse.Namespace) -> None:
    """How fast the classifiers are, in one run with one thread."""
    torch.set_num_threads(1)
    pool = first(task, teacher, ROWS.get(task.name, PAIRS), args)
    sentences = islice(load_corpus(args.corpus).sentences(), task.n_texts * TEXTS)
    rows = list(zip(*[sentences] * task.n_texts, strict=False))
    found: dict[str, Any] = {"teacher": {**timed(teacher.logits, rows), "bytes": 4 * teacher.n_params}}
    for kind in args.kinds:
        for name, model in forms(teacher, pool, kind, task, args).items():
            size = model.file.stat().st_size if hasattr(model, "file") else 4 * model.n_params
            found[name] = {**timed(model.logits, rows), "bytes": size}
            print(name, found[name], flush=True)
    about = {"command": called(args, "--tasks", task.name, "--speed"), "texts": len(rows), "threads": 1}
    write_json(FAMILIES / f"{task.name}-speed.json", {**about, "times": found, **made_by()})


def forms(teacher: Teacher, pool: Pool, kind: str, task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """A classifier in the forms that can be timed, by name. The ones of scikit-learn are trained again, because they are not kept."""
    folder = args.work / "families" / f"{task.name}-{kind}-0"
    if kind == "int8":
        return {kind: export_onnx(Student.load(args.work / "teachers" / task.name), folder, int8=True)["int8"]}
    if kind not in PREFERENCES:
        return {kind: fitted(teacher, pool, kind)}
    model = Student.load(folder / "student")
    exports = export_onnx(model, folder / "onnx", int8=True)
    return {kind: model, **{f"{kind}, ONNX {precision}": export for precision, export in exports.items()}}


def called(args: argparse.Namespace, *words: str) -> str:
    """The command, without this machine's folders."""
    return shown(["python", "scripts/families.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus, *words], args)


def timed(answer: Callable[[list[Row]], np.ndarray], rows: list[Row]) -> dict[str, float]:
    """Microseconds per text in bulk (the best of three), and one at a time (median, 95 of 100)."""
    answer(rows[:64])
    bulk = []
    for _ in range(3):
        began = time.perf_counter()
        answer(rows)
        bulk.append(time.perf_counter() - began)
    single = []
    for row in rows[:SINGLE]:
        began = time.perf_counter()
        answer([row])
        single.append(time.perf_counter() - began)
    slow = float(np.quantile(single, 0.95))
    return {"bulk": 1e6 * min(bulk) / len(rows), "single": 1e6 * statistics.median(single), "single_95": 1e6 * slow}


if __name__ == "__main__":
    main()
