"""Does a cascade keep its promise on the texts of its task?

    python scripts/cascade_check.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --news news.txt --work runs/six

A rule says how sure a student has to be to answer without its teacher. It is made on the rows of plain text that the run held out, and its
promise is about such rows. The students are those of `relatives.py`, which are made if they are missing. The rules are applied to

    plain       `FRESH` more rows of the same pool, which the student has never seen
    dev         the task's validation set, with the teacher's answers for its score
    elsewhere   `ELSEWHERE` rows made in the same way of other text, if `--news` names some

How good is the promise? Three things are drawn `TIMES` times, with replacement:

    sets        the validation set, for the one rule that the run's held-out rows give
    rules       as many plain rows as the run held out, for a rule on them; it is checked on all texts of each kind
    own         `OWN` rows of the validation set, without labels, for a rule on them; it is checked on the whole set, and on those not drawn

The last is what a user can do who has texts of the task. It reads them, so that it is not zero-shot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from leakage import student_of
from provenance import made_by
from relatives import HELD_OUT, PAIRS, ROWS
from six_tasks import RESULTS, StoredAnswers, balanced, first, make_teacher, options, shown

from zskd.cascades import Cascade, Rule, asking_curve, confidence_of
from zskd.core import derive_seed, write_json
from zskd.corpora import load_corpus
from zskd.pools import Pool, hold_out, ood_pool
from zskd.students import Student
from zskd.tasks import TASKS, Row, Task
from zskd.teachers import Teacher

CASCADES = RESULTS.parent / "cascades"
FRESH = 5000
ELSEWHERE = 3000
OWN = 300
TIMES = 1000
AGREEMENTS = (0.90, 0.95, 0.98)
SHARES = np.linspace(0, 1, 101)  # asked, for the figure


def main() -> None:
    """All tasks and seeds that are not done yet."""
    parser = options(__doc__)
    parser.add_argument("--news", nargs="+", default=[], help="text files of another kind than the corpus")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    args.results, args.methods = args.work / "cascades", ["base"]
    for seed in args.seeds:
        args.seed = seed
        for name in args.tasks:
            if not (CASCADES / f"{name}-{seed}.json").exists():
                check(TASKS[name], args)


@dataclass
class Texts:
    """Texts of one kind, and both models' answers to them."""

    rows: list[Row]
    student: np.ndarray  # logits [n, C]
    teacher: np.ndarray  # logits [n, C], the same order of classes

    @property
    def same(self) -> np.ndarray:
        return self.student.argmax(1) == self.teacher.argmax(1)

    def at(self, some: np.ndarray) -> Texts:
        return Texts([self.rows[i] for i in some], self.student[some], self.teacher[some])

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(len(self.rows), size=n)


def check(task: Task, args: argparse.Namespace) -> None:
    """Rules of one student, how they do, and the result file."""
    teacher = make_teacher(task, args)
    student = Student.load(student_of(task, teacher, args) / "student")
    held, kinds = answered_texts(task, teacher, student, args)
    truth = task.load("validation", args.data).labels
    found = {}
    for agreement in AGREEMENTS:
        rule = Rule.fit(held.student, held.teacher, agreement, rows=held.rows)
        found[str(agreement)] = {
            "rule": {k: v for k, v in asdict(rule).items() if k != "seen"},
            "applied": {name: applied(rule, texts) for name, texts in kinds.items()},
            "accuracy": accuracies(rule, kinds["dev"], truth),
            **again(rule, kinds, derive_seed(args.seed, "cascade")),
        }
    cascade = Cascade(student, rule=rule)
    words = ["python", "scripts/cascade_check.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus]
    words += [*(["--news", *args.news] if args.news else []), "--tasks", task.name, "--seeds", str(args.seed)]
    result = {
        "command": shown(words, args),
        "task": task.name,
        "seed": args.seed,
        "texts": {"held_out": len(held.rows), **{name: len(texts.rows) for name, texts in kinds.items()}},
        "alone": {"held_out": float(held.same.mean()), **{name: float(texts.same.mean()) for name, texts in kinds.items()}},
        "classes": {name: shares(texts) for name, texts in {"held_out": held, **kinds}.items()},
        "rules": found,
        "drift": {name: drifted(cascade, texts) for name, texts in kinds.items()},
        "curves": {name: curve(texts, rule.temperature) for name, texts in kinds.items()},
    }
    write_json(CASCADES / f"{task.name}-{args.seed}.json", {**result, **made_by()})
    for agreement, part in found.items():
        print(task.name, args.seed, agreement, {k: round(v["together"], 3) for k, v in part["applied"].items()}, flush=True)


def answered_texts(task: Task, teacher: Teacher, student: Student, args: argparse.Namespace) -> tuple[Texts, dict[str, Texts]]:
    """The rows that the run held out, and the other texts by kind."""
    n = ROWS.get(task.name, PAIRS)
    pool = first(task, teacher, n + FRESH, args)
    dev = task.load("validation", args.data).rows
    order = [list(teacher.labels).index(name) for name in student.labels]

    def texts(rows: list[Row], logits: Any) -> Texts:
        return Texts(rows, student.logits(rows), np.asarray(logits)[:, order])

    def some(pool: Pool, at: Sequence[int] | np.ndarray) -> Texts:
        return texts(pool.rows(at), np.asarray(pool.logits)[at])

    kinds = {"plain": some(pool, range(n, n + FRESH)), "dev": texts(dev, StoredAnswers(teacher, args.work / "logits").logits(dev))}
    if args.news:
        kinds["elsewhere"] = some(news := elsewhere(task, teacher, args), range(len(news)))
    return some(pool, hold_out(n, HELD_OUT, args.seed)[1]), kinds


def elsewhere(task: Task, teacher: Teacher, args: argparse.Namespace) -> Pool:
    """Rows of other text, made and balanced like those of the pool."""
    folder = args.work / "pools" / f"{task.name}-elsewhere"
    if not (folder / "pool.json").exists():
        pool = ood_pool(task, load_corpus(args.news), ELSEWHERE, teacher, balanced(task), seed=0, cache=args.work / "logits")
        pool.save(folder)
    return Pool.load(folder)


def applied(rule: Rule, texts: Texts) -> dict[str, float]:
    """How much is asked, and how many answers are the teacher's: of both together, and of those that the student gives."""
    asked = confidence_of(texts.student, rule.temperature) < rule.threshold
    own = texts.same[~asked]
    return {
        "asked": float(asked.mean()),
        "together": float((texts.same | asked).mean()),
        **({"where_it_answers": float(own.mean())} if len(own) else {}),
    }


def accuracies(rule: Rule, dev: Texts, truth: np.ndarray) -> dict[str, float]:
    """Share of right answers of teacher, student and both together."""
    asked = confidence_of(dev.student, rule.temperature) < rule.threshold
    teacher, student = dev.teacher.argmax(1) == truth, dev.student.argmax(1) == truth
    return {"teacher": float(teacher.mean()), "student": float(student.mean()), "together": float(np.where(asked, teacher, student).mean())}


def again(rule: Rule, kinds: dict[str, Texts], seed: int) -> dict[str, Any]:
    """In which share of `TIMES` draws the stated agreement holds."""
    dev, rng = kinds["dev"], np.random.default_rng(seed)
    sets = [applied(rule, dev.at(dev.draw(len(dev.rows), rng)))["together"] for _ in range(TIMES)]
    rules = [{name: applied(r, texts) for name, texts in kinds.items()} for r, _ in drawn_rules(kinds["plain"], rule, rule.n, rng)]
    own = [{"dev": applied(r, dev), "not_drawn": applied(r, dev.at(rest))} for r, rest in drawn_rules(dev, rule, OWN, rng)]
    return {
        "sets": {"held": float(np.mean(np.array(sets) >= rule.agreement)), "se": float(np.std(sets))},
        "rules": {name: summary([r[name] for r in rules], rule.agreement) for name in rules[0]},
        "own": {name: summary([r[name] for r in own], rule.agreement) for name in own[0]},
    }


def drawn_rules(texts: Texts, rule: Rule, n: int, rng: np.random.Generator) -> Iterator[tuple[Rule, np.ndarray]]:
    """Rules that are each made on `n` of some texts, and the numbers of the texts that were not drawn."""
    for _ in range(TIMES):
        some = texts.draw(n, rng)
        made = Rule.fit(texts.student[some], texts.teacher[some], rule.agreement, rule.risk)
        yield made, np.setdiff1d(np.arange(len(texts.rows)), some)


def summary(found: list[dict[str, float]], agreement: float) -> dict[str, float]:
    """How often the stated agreement holds, and means."""
    together = np.array([f["together"] for f in found])
    return {
        "held": float(np.mean(together >= agreement)),
        "together": float(together.mean()),
        "asked": float(np.mean([f["asked"] for f in found])),
    }


def drifted(cascade: Cascade, texts: Texts) -> dict[str, Any]:
    """What `Cascade.drift` says of the texts, without the teacher."""
    found = cascade.drift(texts.rows, confidence_of(texts.student, cascade.rule.temperature))
    return {"different": found.different, "distances": found.distances}


def shares(texts: Texts) -> list[float]:
    """The teacher's answers by class."""
    return [round(float(np.mean(texts.teacher.argmax(1) == i)), 4) for i in range(texts.teacher.shape[1])]


def curve(texts: Texts, temperature: float) -> list[float]:
    """Agreement at each of `SHARES`."""
    return np.interp(SHARES, *asking_curve(texts.student / temperature, texts.teacher)).round(5).tolist()


if __name__ == "__main__":
    main()
