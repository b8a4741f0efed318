"""Teachers as differences from their base: what is packed comes back, as closely as the bits allow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from zskd.core import ASSETS
from zskd.teachers import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from packed import bits_of, pack, quantise, squeeze, stretch, unpack


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits_come_back(bits):
    codes = torch.randint(0, 2**bits, (7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(bits))
    packed = squeeze(codes, bits)
    assert len(packed) == -(-7 * 5 * bits // 8)
    assert torch.equal(stretch(packed, bits, codes.shape), codes)


def test_more_bits_are_closer():
    change = torch.randn(30, 200, generator=torch.Generator().manual_seed(0))
    errors = []
    for bits in (1, 2, 3, 4):
        codes, steps = quantise(change, bits)
        errors.append(float(((codes - (2**bits - 1) / 2) * steps[:, None] - change).square().mean()))
    # least squared errors of uniform quantisers of a normal variable (Max 1960, table II); whole rows share a step here
    assert np.allclose(errors, [0.3634, 0.1188, 0.0374, 0.0115], rtol=0.15), errors


def test_a_teacher_comes_back(tmp_path):
    teacher = AutoModelForSequenceClassification.from_pretrained(ASSETS / "teacher")
    teacher.base_model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(ASSETS / "teacher").save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    parts = []
    with torch.no_grad():
        for i in range(2):
            for name, weight in teacher.named_parameters():
                weight.add_(torch.randn_like(weight) * (0.01 if weight.ndim == 2 else 0.1) * (i == 0 or "classifier" in name))
            teacher.save_pretrained(tmp_path / f"part{i}")
            AutoTokenizer.from_pretrained(ASSETS / "teacher").save_pretrained(tmp_path / f"part{i}")
            parts.append(load_file(tmp_path / f"part{i}" / "model.safetensors"))
    pack(tmp_path / "base", [tmp_path / "part0", tmp_path / "part1"], tmp_path / "small.safetensors")
    unpack(tmp_path / "base", tmp_path / "small.safetensors", tmp_path / "back")
    back, base = load_file(tmp_path / "back" / "model.safetensors"), AutoModel.from_pretrained(tmp_path / "base").state_dict()
    for name, weight in back.items():
        mean = (parts[0][name] + parts[1][name]) / 2
        if weight.ndim < 2 or "classifier" in name:
            assert torch.allclose(weight, mean, atol=1e-6), name
        else:
            change = mean - base[name.split(".", 1)[1]]
            assert (weight - mean).square().mean() < {2: 0.15, 4: 0.02}[bits_of(name)] * change.square().mean(), name
    assert (tmp_path / "small.safetensors").stat().st_size < teacher.num_parameters() / 2  # fewer than 4 bits per weight, all in all
    assert Teacher.load(tmp_path / "back").logits(["a fine film"]).shape == (1, 2)
