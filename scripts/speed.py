"""Speed and memory, from one run on one machine: labelling, student training, peak memory.

    python scripts/speed.py --teacher TEACHER_FOLDER --corpus 'wikipedia_*.txt'

What is to be compared between machines is a ratio of two measurements of the same run; the rates beside it hold for that machine
only. The results go to `nbs/benchmarks/results/speed.json`, each part with its own command. Run it on a machine that does nothing
else (`memory` alone does not mind).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from provenance import made_by
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

from zskd.core import cpu_has_bf16, read_json, write_json
from zskd.corpora import load_corpus
from zskd.distill import Distiller
from zskd.losses import kl
from zskd.students import Student
from zskd.teachers import Teacher, load_classifier

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "speed.json"
TEXTS = 4096
PARTS = ("labelling", "training", "memory")


def main() -> None:
    """Measure the parts asked for and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder of a text classifier that reads one text")
    parser.add_argument("--corpus", required=True, nargs="+", help="text files")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # used by the script itself, in a process of its own
    args = parser.parse_args()
    if args.count:
        print(json.dumps(peak_memory(args)))
        return
    texts = list(islice(load_corpus(args.corpus).sentences(), TEXTS))
    files = " ".join(Path(c).name for c in args.corpus)
    for part in args.only:
        result = {"labelling": labelling, "training": training}[part](args.teacher, texts) if part != "memory" else memory(args)
        command = f"python scripts/speed.py --teacher {Path(args.teacher).name} --corpus {files} --only {part}"
        done = read_json(RESULT) if RESULT.exists() else {}
        write_json(RESULT, {**done, part: {"command": command, **made_by(), "threads": torch.get_num_threads(), "results": result}})
        print(part, json.dumps(result, indent=2), flush=True)


def best_time(run: Callable[[], object], repeats: int = 3) -> float:
    """The shortest wall time in seconds of some runs, after one that does not count."""
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


def labelling(folder: str, texts: list[str]) -> dict:
    """Texts/s, share of the matrix-product peak, and the ratio to a transformers pipeline on the same texts, in each precision."""
    float32 = {"dtype": torch.float32, "device": "cpu"}  # weights that are stored in half precision would be slow on a processor
    pipe = pipeline("text-classification", model=folder, batch_size=64, truncation=True, max_length=128, **float32)
    pipe(texts[:64])
    start = time.perf_counter()
    answers = pipe(texts)
    theirs = time.perf_counter() - start
    precisions = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
    return {"texts": len(texts), **{p: asking(folder, texts, p, theirs, [a["label"] for a in answers]) for p in precisions}}


def asking(folder: str, texts: list[str], precision: str, theirs: float, said: list[str]) -> dict:
    """What `labelling` tells of one precision, beside a pipeline that took `theirs` seconds and `said` these labels."""
    teacher = Teacher.load(folder, precision=precision)
    c = teacher.model.config
    lengths = np.array([len(t) for t in teacher.tokenizer(texts, truncation=True, max_length=teacher.max_length)["input_ids"]], dtype=float)
    per_token = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    flop = c.num_hidden_layers * (per_token * lengths.sum() + 4 * c.hidden_size * (lengths**2).sum())  # padding is not counted
    logits: list[np.ndarray] = []
    ours = best_time(lambda: logits.append(teacher.logits(texts)), repeats=2)
    same = float((logits[-1].argmax(1) == np.array([teacher.labels.index(label) for label in said])).mean())
    return {"tokens_per_text": lengths.mean(), "label_texts_per_s": len(texts) / ours, "gflop_per_s": flop / ours / 1e9,
            "share_of_matmul_peak": flop / ours / matmul_peak(teacher.fast.dtype), "pipeline_ratio": theirs / ours, "same_predictions": same}  # fmt: skip


def training(folder: str, texts: list[str], batch_size: int = 64, steps: int = 30) -> dict:
    """Student steps/s with cached logits, against a `Trainer` whose loss asks the teacher in every step."""
    teacher = Teacher.load(folder)
    student = Student.create(teacher, ratio=30, corpus=texts)
    with tempfile.TemporaryDirectory() as out:
        run = Distiller(teacher, student, texts, out, batch_size=batch_size, epochs=6, evaluate_every=10_000, ema=None)
        run.fit()
        ours = run.steps / run.seconds["train"]
        theirs = trainer_steps(folder, student, texts, batch_size, steps, out)
    return {"student": student.notes["shape"], "student_steps_per_s": ours, "trainer_steps_per_s": theirs, "trainer_ratio": ours / theirs}


def trainer_steps(folder: str, student: Student, texts: list[str], batch_size: int, steps: int, out: str) -> float:
    """Steps/s of a `Trainer` with a KD loss and an uncached teacher."""
    model, _ = load_classifier(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

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

    args = TrainingArguments(out, max_steps=steps, per_device_train_batch_size=batch_size, use_cpu=True, report_to="none", save_strategy="no",
                             remove_unused_columns=False, disable_tqdm=True, logging_strategy="no")  # fmt: skip
    trainer = Distilling(student.model, args, train_dataset=[{"text": t} for t in texts], data_collator=collate)
    start = time.perf_counter()
    trainer.train()
    return steps / (time.perf_counter() - start)


def memory(args: argparse.Namespace) -> dict:
    """Peak memory of labelling 20,000 and 200,000 texts, each in a process of its own."""
    peaks = {}
    for n in (20_000, 200_000):
        words = [sys.executable, __file__, "--teacher", args.teacher, "--corpus", *args.corpus, "--count", str(n)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[n] = json.loads(done.stdout.strip().split("\n")[-1])
    return {"peak_memory_mib": peaks, "memory_ratio": peaks[200_000] / peaks[20_000]}


def peak_memory(args: argparse.Namespace) -> float:
    """Label this many texts into a cache; the peak resident size in MiB."""
    teacher = Teacher.load(args.teacher)
    texts = list(islice(load_corpus(args.corpus).sentences(3, 12), args.count))
    with tempfile.TemporaryDirectory() as cache:
        teacher.label(texts, cache=cache)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
