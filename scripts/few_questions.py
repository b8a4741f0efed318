"""How much of a teacher is kept with few questions, and which texts to ask about.

    python scripts/few_questions.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

The student is trained on the teacher's answers to some of `CANDIDATES` rows of plain text. Nothing else asks the teacher: the student does
not start from its states, and the pool is not balanced. A tenth of the answers is held out to choose the checkpoint, and counts as well.

How the texts are chosen:

    random       any
    clusters     the candidates in as many groups of similar texts as there are questions; the text next to each centre (MeaeQ, EMNLP 2023)
    uncertain    in `ROUNDS` rounds, the texts that the student so far is least sure about (M-RARU, 2511.11574, without its lottery)
    confident    the same, but only among the half of the texts whose nearest asked neighbours the teacher was most sure about
    together     as `confident`, one text from each group of similar ones
    single       for one half, the most frequent words of the candidates, each asked about alone; any texts for the other

What the student starts from:

    words        convolutions, with the word vectors of the smaller compact encoder
    compact      the smaller compact encoder itself
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from provenance import made_by
from six_tasks import RESULTS, StoredAnswers, answered, candidates, corpus_of, make_teacher, options, shown
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.neighbors import NearestNeighbors
from transformers import AutoModel, AutoTokenizer

from zskd.core import derive_seed, write_json
from zskd.evaluation import evaluate
from zskd.methods.uncertainty import entropy
from zskd.pools import Pool
from zskd.students import EMBEDDED, Student
from zskd.tasks import TASKS, Task
from zskd.teachers import Teacher
from zskd.tokens import encode_rows, token_batches
from zskd.training import Distiller

FEW = RESULTS.parent / "few_questions"
CANDIDATES = 25_000  # times the task's oversampling
COUNTS = (200, 500, 1000, 2000, 5000, 20_000)
CHOICES = ("random", "clusters", "uncertain", "confident", "together", "single")
STARTS = ("words", "compact")
ROUNDS = 4
TRAINING: dict[str, dict[str, Any]] = {
    "words": {"steps": 600, "batch_size": 64, "lr": 3e-3, "hidden": 0.0},
    "compact": {"steps": 600, "batch_size": 32, "lr": 1e-3, "hidden": 0.0},
}
NEIGHBOURS = 10  # asked texts around one that was not asked


def main() -> None:
    """Run what is requested and not done yet."""
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["sst2"])
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--choices", nargs="+", default=list(CHOICES))
    parser.add_argument("--starts", nargs="+", default=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    args.news = []
    for name in args.tasks:
        task = TASKS[name]
        teacher = make_teacher(task, args)
        pool = pool_of(task, teacher, args)
        vectors = represent(pool) if set(args.choices) - {"random", "single"} else np.zeros((0, 0))
        for seed in args.seeds:
            for start in args.starts:
                for n in args.counts:
                    for choice in args.choices:
                        if not (FEW / f"{name}-{start}-{choice}-{n}-{seed}.json").exists():
                            ask(task, teacher, pool, vectors, start, choice, n, seed, args)


def pool_of(task: Task, teacher: Teacher, args: argparse.Namespace) -> Pool:
    """The candidates, each with the teacher's answer. A run sees only the answers that it asks for."""
    folder = args.work / "pools" / f"{task.name}-candidates"
    if not (folder / "pool.json").exists():
        every = candidates(task, teacher, corpus_of("wiki", args), CANDIDATES)
        answered(every, range(len(every)), teacher, args.work / "logits").save(folder)
    return Pool.load(folder)


def with_words(pool: Pool, teacher: Teacher, n: int, args: argparse.Namespace) -> tuple[Pool, np.ndarray]:
    """A pool with the most frequent words of its texts as more rows, and the numbers of these rows."""
    counter = CountVectorizer(max_features=n, token_pattern=r"[a-z]{3,}", stop_words="english").fit(
        text for row in pool.rows() for text in row
    )
    words = [(word,) for word in counter.get_feature_names_out()]
    rows = {
        "text_a": [word for (word,) in words],
        "builder": ["word"] * len(words),
        "logits": list(teacher.logits(words, cache=args.work / "logits")),
    }
    both = concatenate_datasets([pool.dataset, Dataset.from_dict(rows, features=pool.dataset.features)])
    return replace(pool, dataset=both), np.arange(len(pool), len(both))


def represent(pool: Pool) -> np.ndarray:
    """A unit vector for each row, from the larger compact encoder: the teacher is not asked."""
    folder = EMBEDDED["compact-wide"]
    encoder, encoded = AutoModel.from_pretrained(folder).eval(), encode_rows(AutoTokenizer.from_pretrained(folder), pool.rows(), 64)
    out = np.zeros((len(pool), encoder.config.hidden_size), np.float32)
    with torch.inference_mode():
        for at in token_batches(encoded.lengths, 8192):
            inputs = encoded.batch(at)
            states, mask = encoder(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
            out[at] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def ask(
    task: Task, teacher: Teacher, pool: Pool, vectors: np.ndarray, start: str, choice: str, n: int, seed: int, args: argparse.Namespace
) -> None:
    """Choose the texts, train a student on the answers, score it, write its result file."""
    rng = np.random.default_rng(derive_seed(seed, "few", choice, n))
    asked = rng.permutation(len(pool))[: n if choice == "random" else n // 2] if choice in ("random", "single") else np.zeros(0, int)
    if choice == "single":
        pool, words = with_words(pool, teacher, n - n // 2, args)
        asked = np.concatenate([asked, words])
    if choice == "clusters":
        asked = spread_out(vectors, np.arange(len(pool)), n, seed)
    if choice in ("uncertain", "confident", "together"):
        for turn in range(ROUNDS):
            size = n * (turn + 1) // ROUNDS - len(asked)
            if turn == 0:
                asked = spread_out(vectors, np.arange(len(pool)), size, seed) if choice == "together" else rng.permutation(len(pool))[:size]
                continue
            student = distilled(task, teacher, pool, asked, start, seed, args, None).distilled
            asked = np.concatenate([asked, further(pool, vectors, asked, student, choice, size, seed)])
    out = args.work / "few" / f"{task.name}-{start}-{choice}-{n}-{seed}"
    run = distilled(task, teacher, pool, asked, start, seed, args, out)
    report = evaluate(StoredAnswers(teacher, args.work / "logits"), run.distilled, task.validation(args.data), timed=0).data
    names = ("task", "metric", "n", "teacher", "student", "compression", "pct_of_teacher", "agreement", "kl", "scores", "baselines")
    words = ["python", "scripts/few_questions.py", "--base", args.base, "--data", args.data, "--corpus", *args.corpus, "--tasks", task.name]
    words += ["--counts", str(n), "--choices", choice, "--starts", start, "--seeds", str(seed)]
    answers = np.bincount(np.asarray(pool.logits)[asked].argmax(1), minlength=len(teacher.labels)).tolist()
    facts = {"start": start, "choice": choice, "questions": n, "seed": seed, "candidates": len(pool), "answers": answers}
    settings = run.settings.as_dict()
    write_json(
        FEW / f"{task.name}-{start}-{choice}-{n}-{seed}.json",
        {
            "command": shown(words, args),
            **facts,
            "settings": settings,
            "held_out": run.best,
            "report": {k: report[k] for k in names},
            **made_by(),
        },
    )
    print(f"{task.name} {start} {choice} {n} {seed}: {report['pct_of_teacher']:.1f} % of the teacher", flush=True)


def distilled(
    task: Task, teacher: Teacher, pool: Pool, asked: np.ndarray, start: str, seed: int, args: argparse.Namespace, out: Path | None
) -> Distiller:
    """A student trained on the answers to some rows. The words of all candidates are known, because text is free."""
    rows = replace(pool, dataset=pool.dataset.select(asked))
    kind: dict[str, Any] = {"init": "compact-small"} if start == "compact" else {"init": "words", "ratio": 30, "family": "convolution"}
    student = Student.create(
        teacher, **kind, corpus=[text for row in pool.rows() for text in row], seed=seed, n_texts=task.n_texts, sensitivity=False
    )
    folder = out or args.work / "few" / "rounds"
    settings = {**TRAINING[start], "held_out": max(20, len(asked) // 10), "seed": seed}
    settings["batch_size"] = min(settings["batch_size"], len(asked) - settings["held_out"])
    run = Distiller(teacher, student, rows, folder, task=task, cache=args.work / "logits", resume=folder.exists(), **settings)
    run.fit()
    if out is None:
        shutil.rmtree(folder)
    return run


def further(pool: Pool, vectors: np.ndarray, asked: np.ndarray, student: Student, choice: str, n: int, seed: int) -> np.ndarray:
    """Rows to ask about next."""
    left = np.setdiff1d(np.arange(len(pool)), asked)
    if choice in ("confident", "together"):
        near = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(vectors[asked])
        sure = torch.tensor(np.asarray(pool.logits)[asked]).softmax(-1).amax(-1).numpy()
        expected = sure[near.kneighbors(vectors[left], return_distance=False)].mean(1)
        left = left[expected >= np.median(expected)]
    doubt = entropy(torch.tensor(student.logits(pool.rows(left)))).numpy()
    order = left[np.argsort(-doubt, kind="stable")]
    return spread_out(vectors, order[: 4 * n], n, seed) if choice == "together" else order[:n]


def spread_out(vectors: np.ndarray, rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` of some rows, one from each group of similar ones: that next to its centre."""
    if n >= len(rows):
        return rows
    groups = MiniBatchKMeans(n, batch_size=max(1024, n), n_init=1, max_iter=10, random_state=seed).fit(vectors[rows])
    away = np.linalg.norm(vectors[rows] - groups.cluster_centers_[groups.labels_], axis=1)
    first = np.unique(groups.labels_[np.argsort(away, kind="stable")], return_index=True)[1]
    chosen = rows[np.argsort(away, kind="stable")[first]]
    rest = np.setdiff1d(rows, chosen)  # in place of groups without any row
    return np.concatenate([chosen, np.random.default_rng(seed).permutation(rest)[: n - len(chosen)]])


if __name__ == "__main__":
    main()
