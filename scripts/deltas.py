"""Keep a fine-tuned teacher as the low-rank difference from its base, about a twentieth of its size.

    python scripts/deltas.py pack --base ENCODER --teacher FOLDER --out FILE.safetensors
    python scripts/deltas.py unpack --base ENCODER --delta FILE.safetensors --out FOLDER

The teachers of the benchmarks are kept this way, so that their students can be made again, and compared with new ones,
without fine-tuning the teachers again. What is packed is not exactly what was fine-tuned, so the unpacked teacher is the one
that is scored and distilled.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

RANK = 16  # of the difference of a layer's matrix
TABLE_RANK = 8  # of the difference of the word vectors, of which there are many
FILES = ("config", "tokenizer_config")  # kept as JSON in the file's header


def low_rank(difference: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best approximation `left @ right` of this rank (Eckart and Young 1936)."""
    tall = difference if len(difference) >= difference.shape[1] else difference.T
    vectors = torch.linalg.eigh((tall.T @ tall).double()).eigenvectors[:, -rank:].float()
    left, right = tall @ vectors, vectors.T
    return (left, right) if tall is difference else (right.T, left.T)


def pack(base: str, teacher: str, out: Path, rank: int = RANK, table_rank: int = TABLE_RANK) -> None:
    """Write what a teacher differs in from its base."""
    model, origin = (AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32) for name in (teacher, base))
    before, parts = origin.base_model.state_dict(), {}
    prefix = model.base_model_prefix + "."
    for name, after in model.state_dict().items():
        old = before.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if old is None or after.dim() < 2 or min(after.shape) <= 4 * rank:
            parts[f"{name}.whole"] = after - (0 if old is None else old)
        else:
            k = table_rank if max(after.shape) > 8192 else rank
            parts[f"{name}.left"], parts[f"{name}.right"] = low_rank(after - old, k)
    header = {name: (Path(teacher) / f"{name}.json").read_text("utf-8") for name in FILES}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in parts.items()}, out, metadata=header)


def unpack(base: str, delta: Path, out: Path) -> None:
    """Write the teacher that a base and a difference make, as a Hugging Face folder."""
    with safe_open(delta, framework="pt") as f:
        header, parts = f.metadata(), {name: f.get_tensor(name).float() for name in f.keys()}  # noqa: SIM118
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / f"{name}.json").write_text(header[name], "utf-8")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(out), dtype=torch.float32)
    origin = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32).base_model.state_dict()
    prefix = model.base_model_prefix + "."
    state = {}
    for name in model.state_dict():
        old = origin.get(name.removeprefix(prefix), 0.0) if name.startswith(prefix) else 0.0
        whole = parts.get(f"{name}.whole")
        state[name] = old + (parts[f"{name}.left"] @ parts[f"{name}.right"] if whole is None else whole)
    model.load_state_dict(state)
    model.save_pretrained(out)
    limit = json.loads(header["tokenizer_config"]).get("model_max_length")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = limit or tokenizer.model_max_length
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--base", required=True, help="folder or hub name of the encoder that the teacher was fine-tuned from")
    parser.add_argument("--teacher", help="folder of the fine-tuned teacher, to pack")
    parser.add_argument("--delta", type=Path, help="packed file, to unpack")
    parser.add_argument("--out", required=True, type=Path, help="file to pack into, or folder to unpack into")
    parser.add_argument("--rank", type=int, default=RANK, help=f"of the layers' matrices (default {RANK})")
    args = parser.parse_args()
    if args.action == "pack":
        pack(args.base, args.teacher, args.out, args.rank)
    else:
        unpack(args.base, args.delta, args.out)


if __name__ == "__main__":
    main()
