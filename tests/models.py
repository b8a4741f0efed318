"Tiny models that have learnt nothing, with the pieces of the embedded teacher."

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, PreTrainedModel

from zskd.core import ASSETS


def tiny_bert(kind: type[PreTrainedModel], folder: Path, **settings: object) -> PreTrainedModel:
    "A BERT of one layer, saved with its tokenizer."
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "teacher")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = kind(BertConfig(vocab_size=len(tokenizer), **{**sizes, **settings}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def make_teacher(
    folder: Path, labels: Sequence[str] = ("negative", "positive"), n_texts: int | None = 1, answer: int | None = None, **settings: object
) -> Path:
    "A classifier; without a number of texts it is as models of the hub are, and with `answer` it gives this one class to everything."
    names = dict(enumerate(labels))
    notes = {"zskd": {"n_texts": n_texts}} if n_texts else {}
    model = tiny_bert(BertForSequenceClassification, folder, id2label=names, label2id={v: k for k, v in names.items()}, **notes, **settings)
    if answer is not None:
        model.classifier.weight.data.zero_()
        model.classifier.bias.data[answer] = 5.0
        model.save_pretrained(folder)
    return folder
