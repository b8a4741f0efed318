"""Rebuild the files embedded in the package (`zskd/assets/`) from public data.

    python scripts/build_assets.py --base ENCODER --data GLUE_FOLDER --text wikipedia_*.txt

ENCODER is a folder with an uncased BERT encoder (all-MiniLM-L6-v2 made the files in the repository), GLUE_FOLDER
holds `SST-2/train.tsv` and `SST-2/dev.tsv`, and the text files hold one paragraph a line. Every step can be run
alone with `--only`. What was made, and how well it does, is written to `zskd/assets/assets.json`.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import tempfile
from pathlib import Path

import torch

from zskd.core import ASSETS, read_json, write_json
from zskd.corpora import load_corpus
from zskd.students import trim_vocabulary
from zskd.tasks import TASKS
from zskd.teachers import Teacher, fine_tune, load_classifier

MAX_LENGTH = 128
VOCABULARY = 8000
LAYERS = (0, 1, 2)  # of the encoder; fewer layers are what makes the teacher small


def main() -> None:
    """Run the steps asked for and note their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder with an uncased BERT encoder")
    parser.add_argument("--data", required=True, help="folder that holds SST-2/train.tsv and SST-2/dev.tsv")
    parser.add_argument("--text", required=True, nargs="+", help="text files or globs, one paragraph a line")
    parser.add_argument("--only", nargs="+", choices=["text", "eval", "teacher"], default=["text", "eval", "teacher"])
    args = parser.parse_args()
    paragraphs = list(load_corpus(args.text, clean=False).paragraphs())
    notes = read_json(ASSETS / "assets.json") if (ASSETS / "assets.json").exists() else {}
    if "text" in args.only:
        notes["text"] = build_text(paragraphs)
    if "eval" in args.only:
        notes["eval"] = build_eval(args.data)
    if "teacher" in args.only:
        notes["teacher"] = build_teacher(args.base, args.data, paragraphs)
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
    tables.position_embeddings = torch.nn.Embedding.from_pretrained(tables.position_embeddings.weight.data[:MAX_LENGTH].clone(), freeze=False)
    model.config.update({"num_hidden_layers": len(LAYERS), "vocab_size": len(kept), "max_position_embeddings": MAX_LENGTH,
                         "pad_token_id": small.pad_token_id})  # fmt: skip
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


if __name__ == "__main__":
    main()
