"""The table of six GLUE tasks: make teachers, pools and students, and keep one result file per run.

    python scripts/six_tasks.py --base ENCODER --data GLUE_FOLDER --corpus 'wikipedia_*.txt' --work runs/six

The script skips whatever is already in the work folder or among the results. So you can run the matrix in pieces (`--tasks`,
`--variants`, `--seeds`) and continue it after an interruption. The variants are

    wiki        pool from the corpus, balanced by the teacher's own answers: the method
    unbalanced  the same pool without balancing
    selected    the half of its rows on which the student of `wiki` with seed 0, and the same start, differs most from its teacher
    random      random words (RANDOM queries of Krishna et al. 2020, 1910.12366)
    real        the task's own training texts, labelled by the teacher: the upper bound, not zero-shot
    infill      as `wiki`, with a share of rows whose words a masked language model chose
    again       the pool of `wiki`, made on a machine whose arithmetic chose a few other rows: the runs without an adversary to compare with
    both        the rows of `wiki` and, up to four times, those of `real` together; not zero-shot either
    first-N     the first N rows of the pool of `wiki`
    more-N      a pool of N rows, made as that of `wiki`
    news        as `wiki`, N rows (`SOURCE_ROWS`) from news
    rewritten   as `news`, from Wikipedia that a masked language model has rewritten (`zskd write --rewrite`)
    answers, long, mse, plain_kl, last
                the pool of `wiki` with other settings of the `Distiller`; see `CHANGES`

These students have attention, and start from as much of the task's own teacher as fits. A prefix gives them another kind or start:

    convolution, static
                other families, which start from what the teacher makes of single words
    compact     the embedded compact encoder, of at most 1/30 of the teacher's size
    wide        the larger one, of about a tenth
    fresh       the shape of the smaller one, with random weights
    words       the same shape, trained on masked words only (`scripts/objectives.py`)
    size-N      the task's teacher, in the best shape of at most N parameters

After a plus sign comes an adversary, which replaces a part of each batch from three tenths of the steps on: `compact-wiki+gumbel`, for
example. Adversaries are named in `ADVERSARIES`, with changes of one setting for the ablation. Or methods come there, as in
`zskd distill --method`: `compact-wiki+hidden(size=16)`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from packed import pack, unpack
from provenance import made_by
from safetensors.numpy import load_file, save_file

from zskd.adversaries import MaxDivergenceSearch, RandomInfill, class_order
from zskd.callbacks import named_callbacks
from zskd.cli import main as zskd
from zskd.core import RunFolder, atomic_path, digest, read_json, write_json
from zskd.corpora import Corpus, load_corpus
from zskd.evaluation import evaluate
from zskd.generator import MaskedLMGenerator
from zskd.methods.index import make_methods
from zskd.metrics import agreement, kl_rows
from zskd.pools import Pool, Recipe, ood_pool
from zskd.search import GradientSearch
from zskd.shapes import Shape
from zskd.stage2 import Stage2
from zskd.students import Student
from zskd.tasks import SIX_TASKS, TASKS, Row, Task, score
from zskd.teachers import Teacher
from zskd.training import Distiller
from zskd.written import InfillWriter, write_corpus

RESULTS = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "six_tasks"
PACKED = Path(__file__).parents[1] / "nbs" / "benchmarks" / "teachers"  # by scripts/packed.py
CHOSEN = (
    Path(__file__).parents[1] / "nbs" / "benchmarks" / "pools"
)  # which candidates are in the pools of `wiki`, because rounding chooses a few others on other machines
VARIANTS = ("wiki", "answers", "unbalanced", "random", "real", "compact-wiki", "compact-real")
TEACHERS = {  # options of `zskd teacher`; if a task has two, the weights of two teachers are averaged (Wortsman et al. 2022, 2203.05482)
    "sst2": ["--epochs 3 --batch-size 32 --lr 5e-5 --max-length 64", "--epochs 3 --batch-size 32 --lr 5e-5 --max-length 64 --average 0.5"],
    "mnli": ["--epochs 2 --batch-size 32 --lr 8e-5 --extra train_snli_extra"],
    "qnli": ["--epochs 1 --batch-size 32 --lr 1e-4"],
    "qqp": ["--epochs 1 --batch-size 32 --lr 1e-4"],
    "mrpc": ["--epochs 4 --batch-size 16 --lr 5e-5"],
    "rte": ["--epochs 3 --batch-size 16 --lr 5e-5"],
}
BASES = {
    "mrpc": "qqp",
    "rte": "mnli",
}  # small tasks start from the teacher of a large task of the same kind (STILTs, Phang et al. 2018, 1811.01088)
POOL = {"sst2": 400_000, "mnli": 40_000, "qnli": 40_000}  # rows; the other tasks have PAIRS
RECIPE: dict[str, dict[str, Any]] = {
    "sst2": {"spread": 0.0, "oversample": 1.2}
}  # changes of the default recipe: fewer answers for as many rows
PAIRS = 20_000
TIMES = 4  # how often at most real rows are repeated in a pool
STEPS = {"both": 2, "long": 4}  # how many times as many steps as the others
CHANGES: dict[str, dict[str, Any]] = {  # of the settings of `wiki`
    "answers": {"hidden": 0.0},  # for pairs; single texts don't use the teacher's states anyway
    "long": {},
    "again": {},
    "mse": {"loss": "logit_mse"},
    "plain_kl": {"loss": "kl"},
    "last": {"ema": None},  # the weights themselves, not their running average
}
SOURCE_ROWS = {"sst2": 100_000}  # of `news` and `rewritten`; the other tasks have PAIRS
WRITTEN = 30_000  # rewritten sentences
INFILL = 0.15  # share of the rows from the builder `infill`
RANDOM_ROWS = {"sst2": 10_000, "qnli": 10_000}  # the other tasks have 5,000; rows of random words are three times as long as the others
TRAINING: dict[str, dict[str, Any]] = {  # settings of the `Distiller`; the other tasks have PAIR_TRAINING
    "sst2": {"steps": 1500, "lr": 1.5e-3, "precision": "auto", "held_out": 5000, "hidden": 0.0},
}
PAIR_SHAPE = Shape(5678, 40, 128, 3, 3, 4, 392)  # of pair students; `best_shape` has since found a better one
COMPACT_SHAPE = Shape(12_080, 24, 128, 3, 3, 4, 312)  # of the embedded encoder `compact-small`
PAIR_TRAINING = {"steps": 1000, "batch_size": 64, "lr": 2e-3, "precision": "auto", "hidden": 1.0}  # `auto`: bfloat16 if the hardware has it
ADVERSARIES: dict[str, Callable[[], Stage2]] = {
    "infill": lambda: Stage2(RandomInfill()),
    "gumbel": lambda: Stage2(MaskedLMGenerator()),
    "search": lambda: Stage2(MaxDivergenceSearch(2)),
    "gradient": lambda: Stage2(GradientSearch()),
    "search-infill": lambda: Stage2(MaxDivergenceSearch(2, edits=())),  # both versions by the language model
    "search-four": lambda: Stage2(MaxDivergenceSearch(4)),
    "gumbel-free": lambda: Stage2(MaskedLMGenerator(likelihood=0.0)),  # no regulariser
    "gumbel-frozen": lambda: Stage2(MaskedLMGenerator(likelihood=0.0, frozen=0.02)),  # the other one
    "gumbel-mask15": lambda: Stage2(MaskedLMGenerator(share=0.15)),
    "gumbel-mask45": lambda: Stage2(MaskedLMGenerator(share=0.45)),
    "gumbel-l1": lambda: Stage2(MaskedLMGenerator(divergence="logit_l1")),
    "gumbel-agreeing": lambda: Stage2(MaskedLMGenerator(divergence="agreeing_kl")),
    "gumbel-steps1": lambda: Stage2(MaskedLMGenerator(), generator_steps=1),
    "gumbel-steps20": lambda: Stage2(MaskedLMGenerator(), generator_steps=20),
    "gumbel-half": lambda: Stage2(MaskedLMGenerator(), share=0.5),
}


def main() -> None:
    """Run what is requested and not done yet."""
    parser = options(__doc__)
    parser.add_argument("--news", nargs="+", default=[], help="text files of news, for `news`")
    parser.add_argument("--tasks", nargs="+", default=list(SIX_TASKS))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), help="none: the teachers only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    args.results, args.changes = RESULTS, {}
    for name in args.tasks:
        teacher = make_teacher(TASKS[name], args)
        for variant in args.variants:
            if variant.endswith("answers") and not settings_of(TASKS[name], "wiki")["hidden"]:  # there is nothing to leave out
                continue
            for seed in args.seeds:
                if not (args.results / f"{name}-{variant}-{seed}.json").exists():
                    run(TASKS[name], teacher, variant, seed, args)


def options(about: str | None) -> argparse.ArgumentParser:
    """The options of every script that works on these tasks."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder or hub name of the encoder that becomes the teachers")
    parser.add_argument("--data", required=True, help="folder with the tasks' TSV files")
    parser.add_argument("--corpus", required=True, nargs="+", help="text files")
    parser.add_argument("--work", default="runs/six", type=Path, help="folder for teachers, pools, logits, starts and runs")
    parser.set_defaults(start_rows=50_000)
    return parser


def make_teacher(task: Task, args: argparse.Namespace) -> Teacher:
    """The task's teacher, unpacked from its file among the benchmarks; the file is made if it is missing."""
    file, folder = PACKED / f"{task.name}.safetensors", args.work / "teachers" / task.name
    commands = [] if file.exists() else fine_tuned(task, file, args)
    if not (folder / "config.json").exists():
        unpack(args.base, file, folder)
    teacher = Teacher.load(folder).for_task(task)
    if commands:
        examples = task.load("validation", args.data)
        found = score(teacher.logits(examples.rows).argmax(1), examples.labels, task)
        parts = [read_json(part / "teacher.json") for part in tuned(task, args)]
        result = {"commands": commands, "parts": parts, "task": task.name, "bytes": file.stat().st_size, "validation": found}
        write_json(RESULTS / f"{task.name}-teacher.json", {**result, **made_by()})
    return teacher


def tuned(task: Task, args: argparse.Namespace) -> list[Path]:
    """The folders of `zskd teacher` that make up the task's teacher."""
    return [args.work / "tuned" / f"{task.name}-{i}" for i in range(len(TEACHERS[task.name]))]


def fine_tuned(task: Task, file: Path, args: argparse.Namespace) -> list[str]:
    """Make a teacher's file with `zskd teacher`; return the commands."""
    base = args.base
    if task.name in BASES:
        make_teacher(TASKS[BASES[task.name]], args)
        base = args.work / "teachers" / BASES[task.name]
    commands = []
    for out, options in zip(tuned(task, args), TEACHERS[task.name], strict=True):
        words = ["teacher", "--task", task.name, "--base", str(base), "--data", args.data, "--out", str(out), *options.split()]
        if not (out / "teacher.json").exists() and zskd(words):
            sys.exit(f"zskd {shlex.join(words)} failed")
        commands.append(shown(["zskd", *words], args))
    with atomic_path(file) as tmp:
        pack(args.base, tuned(task, args), tmp)
    return commands


def make_rows(task: Task, teacher: Teacher, variant: str, args: argparse.Namespace) -> Any:
    """The rows to distil on: a pool, or the task's real training rows for the upper bound."""
    n, variant = POOL.get(task.name, PAIRS), "wiki" if variant in CHANGES else variant
    if variant == "real":
        return task.load("train", args.data).rows
    if variant == "both":  # the pool first, so that the teacher's answers to it are among the stored ones
        pool, real = make_rows(task, teacher, "wiki", args).rows(), make_rows(task, teacher, "real", args)
        return pool + real * min(TIMES, round(len(pool) / len(real)))
    if variant.startswith("first-"):
        return first(task, teacher, int(variant.removeprefix("first-")), args)
    folder = args.work / "pools" / f"{task.name}-{variant}"
    if (folder / "pool.json").exists():
        return Pool.load(folder)
    corpus, cache = corpus_of(variant, args), args.work / "logits"
    if variant.startswith("more-"):
        n = int(variant.removeprefix("more-"))
    elif variant in ("news", "rewritten"):
        n = SOURCE_ROWS.get(task.name, PAIRS)
    choice = CHOSEN / f"{task.name}.safetensors"
    if variant == "unbalanced":
        pool = answered(candidates(task, teacher, corpus, n), range(n), teacher, cache)
    elif variant == "wiki" and choice.exists():
        every = candidates(task, teacher, corpus, n)
        pool = answered(every, np.flatnonzero(np.unpackbits(load_file(choice)["chosen"])[: len(every)]), teacher, cache)
    else:
        recipe = Recipe.for_task(task, "random") if variant == "random" else balanced(task)
        recipe = with_infill(recipe) if variant == "infill" else recipe
        n = RANDOM_ROWS.get(task.name, 5_000) if variant == "random" else n
        pool = ood_pool(task, corpus, n, teacher, recipe, seed=0, cache=cache)
        if variant == "wiki":
            keep(candidates(task, teacher, corpus, n), pool, choice)
    pool.save(folder)
    return pool


def first(task: Task, teacher: Teacher, n: int, args: argparse.Namespace) -> Pool:
    """The first `n` rows of the pool of `wiki`. Where it is known which rows that pool holds, only these are labelled."""
    found = {int(p.name.rpartition("-")[2]): p for p in (args.work / "pools").glob(f"{task.name}-first-*") if (p / "pool.json").exists()}
    enough = [rows for rows in found if rows >= n]
    choice = CHOSEN / f"{task.name}.safetensors"
    if enough:
        pool = Pool.load(found[min(enough)])
    elif choice.exists():
        every = candidates(task, teacher, corpus_of("wiki", args), POOL.get(task.name, PAIRS))
        chosen = np.flatnonzero(np.unpackbits(load_file(choice)["chosen"])[: len(every)])
        pool = answered(every, chosen[:n], teacher, args.work / "logits")
        pool.save(args.work / "pools" / f"{task.name}-first-{n}")
    else:
        pool = make_rows(task, teacher, "wiki", args)
    return replace(pool, dataset=pool.dataset.select(range(n)))


def selected(task: Task, teacher: Teacher, start: str, args: argparse.Namespace) -> Pool:
    """The half of the pool on which a first student differs most from its teacher; the student is made if it is missing."""
    pool, first = make_rows(task, teacher, "wiki", args), "-".join(filter(None, (start, "wiki")))
    folder = args.work / "runs" / f"{task.name}-{first}-0" / "student"
    if not folder.exists():
        run(task, teacher, first, 0, args)
    student = Student.load(folder)
    answers = teacher.logits(pool, desc="label", cache=args.work / "logits")[:, class_order(teacher, student)]
    apart = kl_rows(answers, student.logits(pool.rows()))
    return replace(pool, dataset=pool.dataset.select(np.sort(np.argsort(-apart)[: len(pool) // 2])))


def corpus_of(variant: str, args: argparse.Namespace) -> Corpus:
    """The text that the rows of a variant come from."""
    if variant == "news":
        return load_corpus(args.news)
    corpus = load_corpus(args.corpus)
    return write_corpus(InfillWriter(corpus), WRITTEN, args.work / "rewritten.jsonl") if variant == "rewritten" else corpus


def balanced(task: Task) -> Recipe:
    """The recipe of a task's main pool."""
    return replace(Recipe.for_task(task), **RECIPE.get(task.name, {}))


def with_infill(recipe: Recipe) -> Recipe:
    """A recipe that takes a share of its rows from the builder `infill`."""
    return replace(recipe, builders={**{name: part * (1 - INFILL) for name, part in recipe.builders.items()}, "infill": INFILL})


def settings_of(task: Task, variant: str) -> dict[str, Any]:
    """Settings of the `Distiller`, apart from the seed."""
    settings = TRAINING.get(task.name, PAIR_TRAINING)
    if variant in STEPS:
        settings = {**settings, "steps": STEPS[variant] * settings["steps"]}
    return {**settings, **CHANGES.get(variant, {})}


def size_of(task: Task, start: str, args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Student.create` for size and start."""
    if start == "compact" or start == "wide":
        return {"init": {"compact": "compact-small", "wide": "compact-wide"}[start]}
    if start == "fresh":
        return {"init": "random", "shape": COMPACT_SHAPE}
    if start == "words":
        return {"init": args.work / "words" / "encoder"}
    if start in ("convolution", "static"):
        return {"init": "teacher", "ratio": 30, "family": start}
    if start.startswith("size-"):
        return {"init": "teacher", "n_params": int(start.removeprefix("size-")), "family": "attention"}
    return {"init": "teacher", **({"ratio": 30, "family": "attention"} if task.n_texts == 1 else {"shape": PAIR_SHAPE})}


def started(task: Task, teacher: Teacher, start: str, rows: Any, seed: int, args: argparse.Namespace) -> Student:
    """The student before any training. Its start is kept, because the teacher has to read every word for some of them."""
    texts = [t for row in (rows.rows(range(min(len(rows), args.start_rows))) if isinstance(rows, Pool) else rows) for t in row]
    folder = args.work / "starts" / f"{task.name}-{start}-{seed}-{digest(texts)[:16]}"
    if not folder.exists():
        made = Student.create(teacher, **size_of(task, start, args), corpus=texts, seed=seed, n_texts=task.n_texts)
        made.save(folder)
    return Student.load(folder)


def candidates(task: Task, teacher: Teacher, corpus: Corpus, n: int) -> Pool:
    """The candidates from which a balanced pool of `n` rows is chosen, without answers."""
    recipe = balanced(task)
    return ood_pool(task, corpus, round(n * recipe.oversample), teacher, replace(recipe, balance=False), seed=0)


def answered(pool: Pool, at: Iterable[int], teacher: Teacher, cache: Path) -> Pool:
    """Some rows of a pool, with the teacher's answers."""
    part = replace(pool, dataset=pool.dataset.select(at))
    rows = part.dataset.add_column("logits", list(teacher.logits(part, cache=cache)))
    return replace(part, dataset=rows, labels=teacher.labels, made=part.made | {"teacher": teacher.fingerprint})


def keep(every: Pool, pool: Pool, path: Path) -> None:
    """Record which candidates a pool holds, one bit for each."""
    mine = set(pool.rows())
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as tmp:
        save_file({"chosen": np.packbits([row in mine for row in every.rows()])}, tmp)


def run(task: Task, teacher: Teacher, variant: str, seed: int, args: argparse.Namespace) -> None:
    """One student: make it, distil it, score it, write its result file."""
    start, learned, extra = parsed(variant)
    stage2 = ADVERSARIES[extra]() if extra in ADVERSARIES else None
    methods = make_methods(extra) if extra and stage2 is None else []
    rows = selected(task, teacher, start, args) if learned == "selected" else make_rows(task, teacher, learned, args)
    student = started(task, teacher, start, rows, seed, args)
    out = args.work / "runs" / f"{task.name}-{variant}-{seed}"
    settings = {**settings_of(task, learned), **args.changes, "seed": seed}
    cache = args.work / "logits"
    distiller = Distiller(
        teacher, student, rows, out, task=task, cache=cache, resume=out.exists(), adversary=stage2, callbacks=methods, **settings
    )
    zero_shot = {"zero_shot": False} if learned in ("real", "both") else {}
    models = StoredAnswers(teacher, cache), distiller.fit(), task.validation(args.data)
    report = evaluate(*models, undistilled=distiller.start, **{**distiller.facts(), **zero_shot}).data
    kept = {
        k: report[k]
        for k in (
            "task",
            "metric",
            "n",
            "teacher",
            "student",
            "compression",
            "pct_of_teacher",
            "agreement",
            "kl",
            "ece",
            "per_class_f1",
            "baselines",
            "scores",
            "queries",
            "seconds",
        )
    }
    words = [
        "python",
        f"scripts/{Path(sys.argv[0]).name}",
        "--base",
        args.base,
        "--data",
        args.data,
        "--corpus",
        *args.corpus,
        *(["--news", *args.news] if learned == "news" else []),
        "--tasks",
        task.name,
        *(["--variants", variant] if not hasattr(args, "methods") else ["--methods", extra or "base"]),
        "--seeds",
        str(seed),
    ]
    write_json(
        args.results / f"{task.name}-{variant}-{seed}.json",
        {
            "command": shown(words, args),
            "variant": variant,
            "seed": seed,
            "shape": student.notes["shape"],
            "settings": distiller.settings.as_dict(),
            "rows": len(rows),
            "pool": rows.stats() if isinstance(rows, Pool) else None,
            "held_out": distiller.best,
            "agreement_by_builder": by_builder(distiller, rows),
            "adversary": adversary_record(distiller),
            "methods": {name: c.settings() for name, c in named_callbacks(methods).items()} or None,
            "asked": vars(distiller.state.queries),
            "report": kept,
            **made_by(),
        },
    )
    print(f"{task.name} {variant} {seed}: {report['pct_of_teacher']:.1f} % of the teacher, agreement {report['agreement']:.3f}", flush=True)


class StoredAnswers:
    """A teacher that answers the examples of a task once per work folder, because every run is scored on them."""

    def __init__(self, teacher: Teacher, cache: Path) -> None:
        self.teacher, self.cache = teacher.for_scoring(), cache
        self.name, self.labels, self.n_params = teacher.name, teacher.labels, teacher.n_params

    def logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits [n, C]; a single row is for timing, so it is never looked up."""
        return self.teacher.logits(rows, cache=self.cache if len(rows) > 1 else None)


def parsed(variant: str) -> tuple[str, str, str]:
    """The start, the rows, and the adversary or methods of a variant; the first and the last may be empty."""
    head, _, extra = variant.partition("+")
    for rows in ("first-", "more-"):
        start, there, n = head.rpartition(rows)
        if there:
            return start.rstrip("-"), rows + n, extra
    start, _, learned = head.rpartition("-")
    return start, learned, extra


def adversary_record(distiller: Distiller) -> dict[str, Any] | None:
    """Settings of a run's adversary, and the log of its first and last turn."""
    if distiller.stage2 is None:
        return None
    turns = RunFolder(distiller.out).read_log("adversary")
    return {"settings": distiller.stage2.settings(), "turns": len(turns), "first": turns[0], "last": turns[-1]}


def by_builder(distiller: Distiller, rows: Any) -> dict[str, float] | None:
    """Agreement with the teacher on the held-out rows of each builder."""
    if not isinstance(rows, Pool):
        return None
    answers = distiller.distilled.logits(rows.rows(distiller.held))
    truth = distiller.teacher.logits(rows, cache=distiller.cache)[distiller.held]
    builders = np.array(rows.columns["builder"])[distiller.held]
    return {name: round(agreement(answers[builders == name], truth[builders == name]), 4) for name in sorted(set(builders))}


def shown(words: list[str], args: argparse.Namespace) -> str:
    """The command line with folders replaced by general names."""
    names = {args.base: "ENCODER", args.data: "GLUE", str(args.work): "runs/six"} | {c: Path(c).name for c in [*args.corpus, *args.news]}
    text = shlex.join(words)
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


if __name__ == "__main__":
    main()
