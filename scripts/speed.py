"""Speed and memory, from one run on one machine: labelling, student training, peak memory.

    python scripts/speed.py --corpus 'wikipedia_*.txt'

Compare only ratios between machines: each is a ratio of two measurements of the same run. Rates hold for one machine only. Both sides
of a ratio are timed in the same way: one warm-up that does not count, then the best of three. The results are written to
`nbs/benchmarks/results/speed.json` when all of them are there. Run this on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import made_by
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, pipeline

from zskd.callbacks import Callback
from zskd.core import ASSETS, cpu_has_bf16, write_json
from zskd.corpora import load_corpus
from zskd.losses import kl
from zskd.models import load_classifier
from zskd.pools import Pool
from zskd.students import Student
from zskd.teachers import AHEAD, Teacher
from zskd.tokens import batch_tokens, token_batches
from zskd.training import Distiller

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "nbs" / "benchmarks" / "results" / "speed.json"
PARTS = ("labelling", "training", "memory")
REPEATS = 3  # of each measurement; the best counts
BATCH = 64  # rows per batch of the pipeline, and per step of both trainings
WARM, STEPS = 10, 60  # steps of a training before those that count, and steps that count


def main() -> None:
    """Measure everything and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--teacher", default=str(ASSETS / "teacher"), help="folder of a text classifier that reads one text (default: the embedded one)"
    )
    parser.add_argument("--corpus", required=True, nargs="+", help="text files")
    parser.add_argument("--out", type=Path, default=RESULT, help="file for the results (default: the result file of the benchmarks)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts only, for a trial; needs another --out")
    parser.add_argument("--texts", type=int, default=4096, help="texts to label and to train on")
    parser.add_argument(
        "--counts", type=int, nargs=2, default=[20_000, 200_000], help="texts that are labelled to measure memory, few and many"
    )
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # used by the script itself, in a process of its own
    args = parser.parse_args()
    if args.count:
        print(json.dumps(peak_memory(args)))
        return
    if set(args.only) != set(PARTS) and args.out.resolve() == RESULT:
        parser.error("--only: give another --out; the benchmarks' result file holds all parts of one run")
    about = {"command": shown(args), **made_by(), "threads": torch.get_num_threads(), "teacher": described(args.teacher)}
    texts = list(islice(load_corpus(args.corpus).sentences(), args.texts))
    results = {}
    for part in args.only:
        results[part] = memory(args) if part == "memory" else {"labelling": labelling, "training": training}[part](args.teacher, texts)
        print(part, json.dumps(results[part], indent=2), flush=True)
    write_json(args.out, {**about, **results})


def shown(args: argparse.Namespace) -> str:
    """The command, without this machine's folders."""
    words = ["python scripts/speed.py", "--corpus", *(Path(c).name for c in args.corpus)]
    words += [] if Path(args.teacher) == ASSETS / "teacher" else ["--teacher", Path(args.teacher).name]
    words += [] if args.texts == 4096 else ["--texts", str(args.texts)]
    words += [] if args.counts == [20_000, 200_000] else ["--counts", *map(str, args.counts)]
    return " ".join(words + ([] if set(args.only) == set(PARTS) else ["--only", *args.only]))


def described(folder: str) -> dict:
    """The teacher that is measured."""
    model, _ = load_classifier(folder)
    c = model.config
    return {
        "embedded": Path(folder) == ASSETS / "teacher",
        "params": sum(p.numel() for p in model.parameters()),
        "layers": c.num_hidden_layers,
        "width": c.hidden_size,
    }


def best_time(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Shortest wall time of some runs in seconds, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some matrix products in this precision."""
    rates = []
    for n, k, m in ((2048, 2048, 2048), (4096, 1536, 1536), (4096, 384, 1536), (4096, 1536, 384)):
        a, b = torch.randn(n, k, dtype=dtype), torch.randn(m, k, dtype=dtype)
        rates.append(2 * n * k * m / best_time(lambda a=a, b=b: torch.nn.functional.linear(a, b), 30))
    return max(rates)


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of padding in all tokens of these batches."""
    return 1 - lengths.sum() / sum(len(b) * lengths[b].max() for b in batches)


def labelling(folder: str, texts: list[str]) -> dict:
    """Texts/s, share of the matrix-product peak, and the ratio to a transformers pipeline on the same texts, in each precision."""
    float32 = {"dtype": torch.float32, "device": "cpu"}  # weights that are stored in half precision would be slow on a processor
    pipe = pipeline("text-classification", model=folder, batch_size=BATCH, truncation=True, max_length=128, **float32)
    answers: list[list[dict]] = []
    theirs = best_time(lambda: answers.append(pipe(texts)))
    lengths = np.array([len(t) for t in pipe.tokenizer(texts, truncation=True, max_length=128)["input_ids"]])
    as_they_come = np.split(np.arange(len(texts)), range(BATCH, len(texts), BATCH))
    precisions = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
    return {
        "texts": len(texts),
        "repeats": REPEATS,
        "pipeline_texts_per_s": len(texts) / theirs,
        "pipeline_padding": padding(lengths, as_they_come),
        **{p: asking(folder, texts, p, theirs, [a["label"] for a in answers[-1]]) for p in precisions},
    }


def asking(folder: str, texts: list[str], precision: str, theirs: float, said: list[str]) -> dict:
    """The figures of `labelling` for one precision, compared with a pipeline that took `theirs` seconds and gave the labels `said`."""
    teacher = Teacher.load(folder, precision=precision)
    c = teacher.model.config
    lengths = np.array([len(t) for t in teacher.tokenizer(texts, truncation=True, max_length=teacher.max_length)["input_ids"]])
    per_token = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    flop = c.num_hidden_layers * (per_token * lengths.sum() + 4.0 * c.hidden_size * (lengths**2).sum())  # padding is not counted
    blocks = [np.arange(i, min(i + AHEAD, len(texts))) for i in range(0, len(texts), AHEAD)]
    batches = [block[b] for block in blocks for b in token_batches(lengths[block], batch_tokens(teacher.fast))]
    logits: list[np.ndarray] = []
    ours = best_time(lambda: logits.append(teacher.logits(texts)))
    same = float((logits[-1].argmax(1) == np.array([teacher.labels.index(label) for label in said])).mean())
    return {
        "tokens_per_text": lengths.mean(),
        "padding": padding(lengths, batches),
        "label_texts_per_s": len(texts) / ours,
        "gflop_per_s": flop / ours / 1e9,
        "share_of_matmul_peak": flop / ours / matmul_peak(teacher.fast.dtype),
        "pipeline_ratio": theirs / ours,
        "same_predictions": same,
    }


def training(folder: str, texts: list[str]) -> dict:
    """Student steps/s with cached logits, against a `Trainer` whose loss asks the teacher in every step."""
    teacher = Teacher.load(folder)
    student = Student.create(teacher, ratio=30, corpus=texts)
    with tempfile.TemporaryDirectory() as out:
        cache = f"{out}/logits"
        alone = {"steps": WARM + STEPS, "evaluate_every": WARM + STEPS}  # one evaluation, after the last step that counts
        ours = max(distiller_steps(teacher, student, texts, f"{out}/alone-{i}", cache, **alone) for i in range(REPEATS))
        whole = max(distiller_steps(teacher, student, texts, f"{out}/whole-{i}", cache) for i in range(REPEATS))
        theirs = max(trainer_steps(folder, student, texts, f"{out}/trainer-{i}") for i in range(REPEATS))
    return {
        "student": student.notes["shape"],
        "texts": len(texts),
        "batch_size": BATCH,
        "warm_up_steps": WARM,
        "steps": STEPS,
        "repeats": REPEATS,
        "student_steps_per_s": ours,
        "student_steps_per_s_with_evaluations": whole,
        "trainer_steps_per_s": theirs,
        "trainer_ratio": ours / theirs,
        "trainer_ratio_with_evaluations": whole / theirs,
    }


def rate(times: list[float]) -> float:
    """Steps/s from the times at which steps ended, without the warm-up and whatever came before and after."""
    return (len(times) - WARM) / (times[-1] - times[WARM - 1])


def step_times(
    teacher: Teacher, student: Student, rows: Pool | list[str], out: str | Path, cache: str | Path, **settings: Any
) -> list[float]:
    """The times at which the steps of a `Distiller` ended, in seconds; stored logits are not asked for again."""
    times: list[float] = []

    class Watch(Callback):
        def on_step(self, run: Distiller, step: int, loss: float) -> None:
            times.append(time.perf_counter())

    Distiller(teacher, student, rows, out, callbacks=[Watch()], cache=cache, **settings).fit()
    return times


def distiller_steps(teacher: Teacher, student: Student, texts: list[str], out: str, cache: str, **settings: int) -> float:
    """Steps/s of a `Distiller`, by default with everything that a run does between its steps."""
    return rate(step_times(teacher, student, texts, out, cache, batch_size=BATCH, **settings))


def trainer_steps(folder: str, student: Student, texts: list[str], out: str) -> float:
    """Steps/s of a `Trainer` with a KD loss and an uncached teacher, which neither evaluates nor saves."""
    model, _ = load_classifier(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    times: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            times.append(time.perf_counter())

    class Distilling(Trainer):
        def compute_loss(self, net, inputs, return_outputs=False, num_items_in_batch=None):
            originals = inputs.pop("teacher_ids"), inputs.pop("teacher_mask")
            with torch.no_grad():
                wanted = model(input_ids=originals[0], attention_mask=originals[1]).logits
            return kl(net(**inputs).logits, wanted)

    pad = DataCollatorWithPadding(student.tokenizer)
    teacher_pad = DataCollatorWithPadding(tokenizer)

    def collate(items: list[dict]) -> dict:
        ours = pad(student.tokenizer([i["text"] for i in items], truncation=True, max_length=student.max_length))
        theirs = teacher_pad(tokenizer([i["text"] for i in items], truncation=True, max_length=128))
        return {**ours, "teacher_ids": theirs["input_ids"], "teacher_mask": theirs["attention_mask"]}

    args = TrainingArguments(
        out,
        max_steps=WARM + STEPS,
        per_device_train_batch_size=BATCH,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="no",
    )
    net = copy.deepcopy(student.model)  # the student itself stays as it started
    Distilling(net, args, train_dataset=[{"text": t} for t in texts], data_collator=collate, callbacks=[Watch()]).train()
    return rate(times)


def memory(args: argparse.Namespace) -> dict:
    """Peak memory of labelling few and many texts, each in a process of its own."""
    peaks = {}
    for n in args.counts:
        words = [sys.executable, __file__, "--teacher", args.teacher, "--corpus", *args.corpus, "--count", str(n)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[n] = json.loads(done.stdout.strip().split("\n")[-1])
    few, many = args.counts
    return {"peak_memory_mib": peaks, "memory_ratio": peaks[many] / peaks[few]}


def peak_memory(args: argparse.Namespace) -> float:
    """Label this many texts into a cache; the peak resident size in MiB."""
    teacher = Teacher.load(args.teacher)
    texts = list(islice(load_corpus(args.corpus).sentences(), args.count))
    assert len(texts) == args.count, f"the corpus has {len(texts)} sentences only"
    with tempfile.TemporaryDirectory() as cache:
        teacher.logits(texts, cache=cache)
    return own_peak()


def own_peak() -> float:
    """Peak resident size of this process in MiB, from Linux. `getrusage` would start from the size of the parent process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
