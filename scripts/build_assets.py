"""Rebuild the files embedded in the package (`zskd/assets/`) from public data.

    python scripts/build_assets.py --base ENCODER --data GLUE_FOLDER --text wikipedia_*.txt --other news.txt --work FOLDER

ENCODER is a folder with an uncased BERT encoder; the files in the repository were made with all-MiniLM-L6-v2. GLUE_FOLDER holds
`SST-2/train.tsv` and `SST-2/dev.tsv`. The text files hold one paragraph a line; masked words are counted on the `--other` file.

`--only` runs single steps. The compact encoders read no task data, take about an hour each on one core, and continue after an
interruption. `zskd/assets/assets.json` records what was made and its scores.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

from zskd.core import ASSETS, count_parameters, read_json, write_json
from zskd.corpora import load_corpus
from zskd.fine_tuning import fine_tune
from zskd.models import load_classifier
from zskd.pretraining import MixedPool, Pretrainer, compact_student, mixed_text, objectives, open_encoder
from zskd.shapes import Shape
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.vocabularies import trim_vocabulary

MAX_LENGTH = 128
VOCABULARY = 8000
LAYERS = (0, 1, 2)  # of the encoder; fewer layers make the teacher small
ROWS = 300_000  # of mixed text, for the compact encoders
WIDE = Shape(8000, 64, 384, 2, 2, 12, 232)  # of the larger one: as wide as the encoder, whose layers it starts from
STEPS = ["text", "eval", "teacher", "small", "wide"]
CARD = """---
license: apache-2.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# {name}

{parameters:,} parameters: {shape}. A compact encoder for students of zskd to start from: `Student.create(teacher, init="{name}")`, or
`AutoModel.from_pretrained(folder)`.

- **Source**: all-MiniLM-L6-v2 (22.7 million parameters, Apache-2.0). That encoder was itself trained on sentence pairs, including natural
  language inference and duplicate questions.
- **Text**: {rows:,} rows made from English Wikipedia (dump of 2015, CC BY-SA), single texts and pairs. No task data.
- **Vocabulary**: {vocabulary}
- **Objective**: {objective}
- **Steps**: {steps}
- **Command**: `python scripts/build_assets.py --only {step} ...`; the head of that script lists its arguments.
- **Limits**: English in lower case, inputs of up to 128 pieces. It is a start for training, not a classifier.
"""


def main() -> None:
    """Run the steps asked for and note their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder with an uncased BERT encoder")
    parser.add_argument("--data", required=True, help="folder that holds SST-2/train.tsv and SST-2/dev.tsv")
    parser.add_argument("--text", required=True, nargs="+", help="text files or globs, one paragraph a line")
    parser.add_argument("--other", required=True, help="a text file of another source, one paragraph a line")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs of the compact encoders")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    args = parser.parse_args()
    paragraphs = list(load_corpus(args.text, clean=False).paragraphs())
    notes = read_json(ASSETS / "assets.json") if (ASSETS / "assets.json").exists() else {}
    if "text" in args.only:
        notes["text"] = build_text(paragraphs)
    if "eval" in args.only:
        notes["eval"] = build_eval(args.data)
    if "teacher" in args.only:
        notes["teacher"] = build_teacher(args.base, args.data, paragraphs)
    if {"small", "wide"} & set(args.only):
        encoder, rows = open_encoder(args.base), mixed_text(load_corpus(args.text), ROWS)
    if "small" in args.only:
        notes["compact-small"] = build_small(encoder, rows, args.work)
    if "wide" in args.only:
        notes["compact-wide"] = build_wide(encoder, rows, args.work, list(load_corpus(args.other, clean=False).paragraphs())[:3000])
    write_json(ASSETS / "assets.json", notes)


def build_text(paragraphs: list[str], n: int = 2600) -> dict:
    """A sample of whole paragraphs of three to seven sentences, mostly ASCII, without tables."""

    def usable(p: str) -> bool:
        sentences, words = len(re.split(r"(?<=[.!?])\s+", p)), len(p.split())
        plain = sum(c.isascii() for c in p) / len(p) > 0.985 and sum(c.isdigit() for c in p) / len(p) < 0.04
        return 3 <= sentences <= 7 and 40 <= words <= 160 and plain and p.endswith(".")

    chosen = [p for p in paragraphs if usable(p)]
    random.Random(2012).shuffle(chosen)
    data = ("\n".join(chosen[:n]) + "\n").encode()
    with open(ASSETS / "wikipedia.txt.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as f:
        f.write(data)
    return {"paragraphs": min(n, len(chosen)), "bytes": len(data)}


def build_eval(data: str, n: int = 400) -> dict:
    """A random sample of short quoted sentences from the SST-2 development set."""
    header, *lines = (Path(data) / "SST-2" / "dev.tsv").read_text(encoding="utf-8").strip().split("\n")
    chosen = sorted(random.Random(0).sample(range(len(lines)), n))
    target = ASSETS / "eval" / "SST-2" / "dev.tsv"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([header, *(lines[i] for i in chosen)]) + "\n", encoding="utf-8")
    return {"rows": n, "of": len(lines)}


def build_teacher(base: str, data: str, paragraphs: list[str]) -> dict:
    """Cut the encoder to a few layers and a small vocabulary, fine-tune it on SST-2, and store it in float16."""
    task = TASKS["sst2"]
    model, tokenizer = load_classifier(base, num_labels=2)
    train = [row[0] for row in task.load("train", data).rows]
    small, kept = trim_vocabulary(tokenizer, VOCABULARY, paragraphs[:8000] + train, max_length=MAX_LENGTH)
    model.bert.encoder.layer = torch.nn.ModuleList([model.bert.encoder.layer[i] for i in LAYERS])
    tables = model.bert.embeddings
    tables.word_embeddings = torch.nn.Embedding.from_pretrained(tables.word_embeddings.weight.data[kept], freeze=False)
    tables.position_embeddings = torch.nn.Embedding.from_pretrained(
        tables.position_embeddings.weight.data[:MAX_LENGTH].clone(), freeze=False
    )
    model.config.update(
        {
            "num_hidden_layers": len(LAYERS),
            "vocab_size": len(kept),
            "max_position_embeddings": MAX_LENGTH,
            "pad_token_id": small.pad_token_id,
        }
    )
    with tempfile.TemporaryDirectory() as start:
        model.save_pretrained(start)
        small.save_pretrained(start)
        result = fine_tune(task, start, ASSETS / "teacher", data, epochs=2, batch_size=32, lr=1e-4, max_length=MAX_LENGTH)
    (ASSETS / "teacher" / "teacher.json").unlink()
    tuned, _ = load_classifier(ASSETS / "teacher")
    tuned.half().save_pretrained(ASSETS / "teacher")
    stored = Teacher.load(ASSETS / "teacher")
    full, sample = task.load("validation", data), task.load("validation", ASSETS / "eval")
    accuracy = {name: float((stored.logits(e.rows).argmax(1) == e.labels).mean()) for name, e in (("dev", full), ("sample", sample))}
    return {"parameters": stored.n_params, "accuracy": accuracy, "fine_tuning": {k: result[k] for k in ("accuracy", "f1")}}


def pretrained(encoder: Teacher, start: Student, rows: MixedPool, out: Path, **settings: Any) -> Pretrainer:
    """Start or continue a run of general distillation and finish it; keep the encoder's states for the next."""
    run = Pretrainer(encoder, start, rows, out, resume=out.exists(), cache=out.parent / "states", batch_size=64, **settings)
    run.fit()
    return run


def build_small(encoder: Teacher, rows: MixedPool, work: Path) -> dict:
    """The compact encoder of `zskd pretrain --rows 300000 --epochs 5`: at most 757,000 parameters with a classifier of three classes."""
    start = compact_student(encoder, 757_000, [text for row in rows.rows(range(50_000)) for text in row])
    run = pretrained(encoder, start, rows, work / "small", epochs=5, lr=2e-3, precision="auto", **objectives())
    return noted(
        "small",
        run,
        vocabulary="those pieces of the encoder that this text uses most.",
        shape=start.notes["shape"],
        steps=f"{run.steps:,} of 64 rows.",
        objective="the encoder's last hidden states in their 64 leading directions, and the nearness of sentences in a batch (weight 0.1).",
    )


def build_wide(encoder: Teacher, rows: MixedPool, work: Path, other: list[str]) -> dict:
    """A compact encoder with the embedded teacher's vocabulary that also names masked words: first the encoder's states, then both."""
    start = compact_student(encoder, 2_300_000, None, tokenizer=AutoTokenizer.from_pretrained(ASSETS / "teacher"), shape=WIDE)
    settings = {"lr": 1e-3, "precision": "bf16", "held_out": 2000}
    first = pretrained(encoder, start, rows, work / "wide-states", steps=2000, evaluate_every=166, **settings, **objectives())
    again = Student.create(encoder, init=work / "wide-states" / "encoder", labels=encoder.labels, n_texts=2)
    run = pretrained(
        encoder, again, rows, work / "wide", steps=6000, evaluate_every=500, ema=None, **settings, **objectives(words=1.0, share=0.2)
    )
    made = noted(
        "wide",
        run,
        shape=str(WIDE),
        steps=f"{first.steps:,}, then {run.steps:,} with masked words, of 64 rows each; the encoder is that of step {run.best['step']:,}.",
        vocabulary="that of the embedded SST-2 teacher, whose pieces were counted in Wikipedia and in the SST-2 training sentences.",
        objective="the encoder's last hidden states in their 64 leading directions, the nearness of sentences in a batch (weight 0.1); "
        "then "
        "masked words as well (weight 1, a fifth of the pieces). The head that names them is kept: "
        "`AutoModelForMaskedLM.from_pretrained(folder)`.",
    )
    return {**made, "masked_words": masked_words(ASSETS / "compact-wide", other)}


def noted(step: str, run: Pretrainer, **facts: str) -> dict:
    """Store a run's encoder in float16, with its model card; return its entry for `assets.json`."""
    folder = ASSETS / f"compact-{step}"
    shutil.copytree(run.out / "encoder", folder, dirs_exist_ok=True)
    save_file(
        {name: w.half() for name, w in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors", {"format": "pt"}
    )
    write_json(folder / "config.json", read_json(folder / "config.json") | {"dtype": "float16"})
    (folder / "tokenizer.json").write_text(
        json.dumps(read_json(folder / "tokenizer.json"), ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    write_json(
        folder / "zskd.json",
        {"max_length": run.distilled.max_length, "notes": {"shape": facts["shape"], "vocab": facts["vocabulary"].rstrip(".")}},
    )
    made = {"parameters": count_parameters(run.distilled.model.base_model), "rows": len(run.pool), "held_out": run.best}
    text = CARD.format(name=f"compact-{step}", step=step, **made, **facts)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {**made, "shape": facts["shape"], "steps": facts["steps"]}


def masked_words(folder: Path, texts: list[str]) -> dict[str, float]:
    """Share of masked pieces that a stored model predicts, and the share for always predicting the most frequent one."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    masks = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, mask_replace_prob=1, random_replace_prob=0, seed=0)
    items = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=64)["input_ids"]]
    right, truth = [], []
    for i in range(0, len(items), 100):
        batch = masks(items[i : i + 100])
        at = batch["labels"] >= 0
        with torch.inference_mode():
            scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        right.append(scores.argmax(-1)[at] == batch["labels"][at])
        truth.append(batch["labels"][at])
    pieces = torch.cat(truth)
    return {
        "pieces": len(pieces),
        "named": torch.cat(right).float().mean().item(),
        "commonest": (pieces.mode().values == pieces).float().mean().item(),
    }


if __name__ == "__main__":
    main()
