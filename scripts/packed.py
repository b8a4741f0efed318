"""Fine-tuned teachers as small files: the difference from their public base, at a few bits per weight.

    python scripts/packed.py pack --base ENCODER --teacher TEACHER_FOLDER [MORE_FOLDERS] --file sst2.safetensors
    python scripts/packed.py unpack --base ENCODER --file sst2.safetensors --teacher TEACHER_FOLDER

With these files, people who don't have the teachers' training data can repeat the benchmarks. Fine-tuning changes weights only a little,
and the change tolerates coarse rounding (BitDelta, Liu et al. 2024, 2402.10193): 4 bits per weight and 2 per number of the word vectors.
The teacher of a benchmark is the model that `unpack` returns, not the model before rounding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

CLIPS = torch.linspace(0.3, 1.0, 15)  # where the outermost level may lie, as a share of the largest change


def bits_of(name: str) -> int:
    """How many bits a change of this weight gets: most word vectors hardly move."""
    return 2 if ".embeddings." in name else 4


def quantise(change: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (0 to 2**bits - 1) and one step per row of a matrix, with the least squared error; the levels are symmetric about 0."""
    top = 2**bits - 1
    widest = change.abs().amax(1, keepdim=True).clamp_min(1e-12)
    starts = 2 / top * widest * CLIPS[:, None, None] if bits > 1 else 2 * change.abs().mean(1, keepdim=True).clamp_min(1e-12)[None]
    best, codes, steps = torch.full_like(widest, torch.inf), torch.zeros_like(change, dtype=torch.uint8), torch.zeros_like(widest)
    for step in starts:
        found = (change / step + top / 2).round().clamp(0, top)
        error = ((found - top / 2) * step - change).square().sum(1, keepdim=True)
        better = error < best
        best, steps = torch.where(better, error, best), torch.where(better, step, steps)
        codes = torch.where(better, found.to(torch.uint8), codes)
    return codes, steps[:, 0]


def squeeze(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes as bits, eight to a byte."""
    planes = (codes.flatten()[:, None] >> torch.arange(bits)) & 1
    return torch.from_numpy(np.packbits(planes.to(torch.uint8).numpy()))


def stretch(packed: torch.Tensor, bits: int, shape: torch.Size) -> torch.Tensor:
    """Unpack the codes that `squeeze` packed."""
    planes = torch.from_numpy(np.unpackbits(packed.numpy(), count=shape.numel() * bits)).view(-1, bits)
    return (planes << torch.arange(bits)).sum(1).view(shape)


def base_weights(base: str | Path, names: list[str]) -> dict[str, torch.Tensor]:
    """The weights of an encoder under the names that they have in a classifier on top of it."""
    found = load_file(Path(base) / "model.safetensors")
    return {name: found[name.split(".", 1)[1]].float() for name in names if name.split(".", 1)[-1] in found}


def pack(base: str | Path, teachers: list[Path], file: str | Path) -> None:
    """Write a teacher, or the mean of several, as its difference from the encoder that it was made from."""
    parts = [load_file(Path(teacher) / "model.safetensors") for teacher in teachers]
    weights = {name: sum(part[name].float() for part in parts) / len(parts) for name in parts[0]}
    start, tensors = base_weights(base, list(weights)), {}
    for name, weight in weights.items():
        if name in start and weight.ndim == 2:
            codes, steps = quantise(weight - start[name], bits_of(name))
            tensors[f"{name}:codes"], tensors[f"{name}:steps"] = squeeze(codes, bits_of(name)), steps
        else:
            tensors[name] = weight - start.get(name, torch.zeros(()))
    save_file(
        tensors, file, metadata={name: (Path(teachers[0]) / name).read_text("utf-8") for name in ("config.json", "tokenizer_config.json")}
    )


def unpack(base: str | Path, file: str | Path, teacher: str | Path) -> None:
    """Write the teacher's folder."""
    with safe_open(file, "pt") as packed:
        notes, tensors = packed.metadata(), {name: packed.get_tensor(name) for name in packed.keys()}  # noqa: SIM118 (not a dictionary)
    names, folder = sorted({name.split(":")[0] for name in tensors}), Path(teacher)
    start, weights = base_weights(base, names), {}
    for name in names:
        if name in tensors:
            weights[name] = start.get(name, torch.zeros(())) + tensors[name]
        else:
            codes = stretch(tensors[f"{name}:codes"], bits_of(name), start[name].shape)
            weights[name] = start[name] + (codes - (2 ** bits_of(name) - 1) / 2) * tensors[f"{name}:steps"][:, None]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(notes["config.json"], "utf-8")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = json.loads(notes["tokenizer_config.json"])["model_max_length"]
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("--base", required=True, help="folder of the encoder that the teacher was made from")
    parser.add_argument(
        "--teacher", required=True, nargs="+", help="folder of the teacher; if several are packed, their weights are averaged"
    )
    parser.add_argument("--file", required=True, help="the small file")
    args = parser.parse_args()
    if args.what == "pack":
        pack(args.base, args.teacher, args.file)
    else:
        unpack(args.base, args.file, args.teacher[0])


if __name__ == "__main__":
    main()
