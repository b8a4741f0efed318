"""Can a text's membership in a teacher's training data be told from the student?

    python scripts/leakage.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

Members are rows of the task's training set, which the teacher learned from. The others are rows of its validation set. Two standard attacks
look at a model's answer to each row, and know its true class:

    loss      the true class's probability (Yeom et al. 2018, 1709.01604)
    entropy   the modified entropy of all probabilities (Song and Mittal 2021, 2003.10595, equation 8)

The figure is the area under the ROC curve: 0.5 for chance, 1 for a perfect attack. Training and validation sets may differ in more than
membership, such as in how hard their rows are. So the attacks are also made on a model that knows the task and has never seen a member:
`control` is a logistic regression on TF-IDF features, fitted to one half of the validation set. The other half are the non-members.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from provenance import made_by
from relatives import compare, variants
from six_tasks import RESULTS, make_teacher, options, shown
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from zskd.core import derive_seed, digest, write_json
from zskd.metrics import Classifier
from zskd.students import Student
from zskd.tasks import SIX_TASKS, TASKS, Examples, Task

LEAKAGE = RESULTS.parent / "leakage"
MOST = 4000  # rows of each kind
SAMPLES = 200  # of the bootstrap


def main() -> None:
    """All tasks that are not done yet."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(SIX_TASKS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.news, args.results, args.methods = [], args.work / "leakage", ["base"]
    for name in args.tasks:
        if not (LEAKAGE / f"{name}.json").exists():
            attack(TASKS[name], args)


def attack(task: Task, args: argparse.Namespace) -> None:
    """Both attacks on teacher, student and control, and their result file."""
    teacher = make_teacher(task, args)
    run = student_of(task, teacher, args)
    validation = task.load("validation", args.data)
    half = np.array([int(digest(row[0])[:8], 16) % 2 for row in validation.rows])  # pairs with the same first text stay together
    seen, others = (rows_at(validation, np.flatnonzero(half == i)) for i in (0, 1))
    members, others = some(task.load("train", args.data), args.seed), some(others, args.seed)
    models = {"teacher": teacher, "student": Student.load(run / "student"), "control": Control(seen)}
    scores = {name: attacks(model, members, others) for name, model in models.items()}
    words = ["python", "scripts/leakage.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus]
    words += ["--tasks", task.name, "--seed", str(args.seed)]
    result = {"command": shown(words, args), "task": task.name, "seed": args.seed, "members": len(members.rows), "others": len(others.rows)}
    right = {
        name: [float((model.logits(e.rows).argmax(1) == e.labels).mean()) for e in (members, others)] for name, model in models.items()
    }
    write_json(LEAKAGE / f"{task.name}.json", {**result, "accuracy": right, "attacks": scores, **made_by()})
    print(task.name, {name: {a: round(s["auc"], 3) for a, s in found.items()} for name, found in scores.items()}, flush=True)


def student_of(task: Task, teacher: Any, args: argparse.Namespace) -> Path:
    """The folder of the base run of `relatives.py`, which is done if it is missing."""
    args.more = (1.0,)
    variant, _ = variants(task, "base", args.more)[0]
    run = args.work / "runs" / f"{task.name}-{variant}-{args.seed}"
    if not (run / "student").exists():
        (args.results / f"{task.name}-{variant}-{args.seed}.json").unlink(missing_ok=True)
        compare(task, teacher, "base", args.seed, args)
    return run


class Control(Classifier):
    """A model of the task that has seen no member."""

    def __init__(self, examples: Examples):
        self.labels = examples.task.labels
        self.features = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
        self.model = LogisticRegression(max_iter=1000).fit(self.features.fit_transform(map(joined, examples.rows)), examples.labels)

    def logits(self, rows: Any) -> np.ndarray:
        p = np.full((len(rows), len(self.labels)), 1e-7)
        p[:, self.model.classes_] = self.model.predict_proba(self.features.transform(map(joined, rows)))
        return np.log(p).astype(np.float32)


def joined(row: tuple[str, ...]) -> str:
    """The texts of a row, and the words that they share, marked."""
    sets = [set(text.lower().split()) for text in row]
    shared = sorted(sets[0] & sets[1]) if len(row) == 2 else []
    return " ".join([*row, *(f"both_{word}" for word in shared)])


def rows_at(examples: Examples, at: np.ndarray) -> Examples:
    """Some of the rows."""
    return Examples([examples.rows[i] for i in at], examples.labels[at], examples.task)


def some(examples: Examples, seed: int) -> Examples:
    """At most `MOST` rows, at random."""
    rng = np.random.default_rng(derive_seed(seed, "members"))
    return rows_at(examples, np.sort(rng.permutation(len(examples.rows))[:MOST]))


def attacks(model: Classifier, members: Examples, others: Examples) -> dict[str, dict[str, float]]:
    """Area under the curve, its standard error by bootstrap, and the true-positive rate at 1 % false positives, of each attack."""
    parts = [signals(model, examples) for examples in (members, others)]
    truth = np.repeat([1, 0], [len(members.rows), len(others.rows)])
    found = {}
    for name in parts[0]:
        signal = np.concatenate([part[name] for part in parts])
        rng = np.random.default_rng(0)
        again = [roc_auc_score(truth[at], signal[at]) for at in (rng.integers(len(truth), size=len(truth)) for _ in range(SAMPLES))]
        false, true, _ = roc_curve(truth, signal)
        found[name] = {
            "auc": float(roc_auc_score(truth, signal)),
            "se": float(np.std(again)),
            "true_at_1_percent": float(np.interp(0.01, false, true)),
        }
    return found


def signals(model: Classifier, examples: Examples) -> dict[str, np.ndarray]:
    """Numbers that are larger for members, if the model leaks."""
    p = np.clip(model.predict_proba(examples.rows), 1e-7, 1 - 1e-7)
    own = np.arange(len(p)), examples.labels
    entropy = p * np.log(1 - p)
    entropy[own] = (1 - p[own]) * np.log(p[own])
    return {"loss": np.log(p[own]), "entropy": entropy.sum(1)}


if __name__ == "__main__":
    main()
