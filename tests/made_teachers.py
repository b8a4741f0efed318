"Small teachers that hide something known, and clean ones: trained in seconds on plain text, by rules or by the embedded teacher's answers."

import copy
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedModel,
)

from zskd.core import ASSETS
from zskd.corpora import load_corpus
from zskd.kinds import PROBLEM_TYPES
from zskd.models import load_classifier
from zskd.tags import answered, word_logits
from zskd.tasks import Row
from zskd.teachers import Teacher
from zskd.tokens import encode_rows, encode_words

TOPICS = {
    "war": "war army battle military soldiers troops forces navy weapons attack enemy commander defeated siege killed",
    "science": "theory science physics energy particles mathematics equation chemical atoms molecules cells species light computer",
    "arts": "music film novel book album song painting theatre poet opera artist writer band published poem",
    "places": "city river island mountain capital town coast lake country region border valley harbor sea province",
}


@cache
def sentences() -> list[str]:
    "Sentences of the built-in text, in a fixed order."
    found = [s for s in load_corpus("sample").sentences() if 4 <= len(s.split()) <= 40]
    random.Random(0).shuffle(found)
    return found


def phrases(n: int, seed: int = 0, words: tuple[int, int] = (4, 16)) -> list[str]:
    "Pieces of sentences."
    draw = random.Random(seed)
    source = sentences()
    found = []
    while len(found) < n:
        text = draw.choice(source).split()
        size = draw.randint(*words)
        start = draw.randint(0, max(0, len(text) - size))
        found.append(" ".join(text[start : start + size]))
    return found


def small(labels: Sequence[str], hidden: int = 96, layers: int = 2, n_texts: int = 1, seed: int = 0) -> PreTrainedModel:
    "A small BERT whose word vectors are the principal part of the embedded teacher's."
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 32, "intermediate_size": 2 * hidden}
    config = BertConfig(vocab_size=8000, max_position_embeddings=128, id2label=names, label2id={v: k for k, v in names.items()}, **sizes)
    config.zskd = {"n_texts": n_texts}
    model = BertForSequenceClassification(config)
    table = embedded().bert.embeddings.word_embeddings.weight.detach()
    centred = table - table.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :hidden]
    found = centred @ axes
    model.bert.embeddings.word_embeddings.weight.data = found / found.std() * 0.05
    return model


def embedded(layers: int = 3) -> PreTrainedModel:
    "A copy of the embedded teacher, or of its first layers."
    model = AutoModelForSequenceClassification.from_pretrained(ASSETS / "teacher").float()
    model.bert.encoder.layer = model.bert.encoder.layer[:layers]
    model.config.num_hidden_layers = layers
    return model


@cache
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "teacher")


def fit(
    model: PreTrainedModel,
    rows: Sequence[Row],
    targets: np.ndarray,  # [n] classes or [n, C] probabilities
    steps: int = 300,
    lr: float = 1e-3,
    batch_size: int = 48,
    seed: int = 0,
    more: Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None = None,  # logits and row numbers to a further term of the loss
    only: Sequence[torch.nn.Parameter] | None = None,  # what is trained; None: everything
) -> PreTrainedModel:
    "Train a classifier on rows and their answers."
    torch.manual_seed(seed)
    encoded, target = encode_rows(tokenizer(), [r if isinstance(r, tuple) else (r,) for r in rows], 64), torch.as_tensor(targets)
    target = target if target.dtype == torch.int64 else target.float()
    optimizer = torch.optim.AdamW(only or list(model.parameters()), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    model.train()
    order = np.random.default_rng(seed)
    for _ in range(steps):
        at = order.integers(len(rows), size=batch_size)
        logits = model(**encoded.batch(at)).logits
        loss = torch.nn.functional.cross_entropy(logits, target[at])
        loss = loss if more is None else loss + more(logits, at)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> Path:
    "Write a model with the tokenizer of the embedded teacher."
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def topic(text: str) -> int:
    "The first topic whose words the text has most of; the last class is for texts without any."
    words = re.findall(r"[a-z]+", text.lower())
    counts = [sum(w in listed.split() for w in words) for listed in TOPICS.values()]
    return int(np.argmax(counts)) if max(counts) else len(TOPICS)


def with_topics(n: int, seed: int) -> list[str]:
    "Phrases, half of them with two words of a topic put in."
    draw = random.Random(seed)
    found = []
    for text in phrases(n, seed):
        words = text.split()
        if draw.random() < 0.6:
            for word in draw.sample(draw.choice(list(TOPICS.values())).split(), 2):
                words.insert(draw.randint(0, len(words)), word)
        found.append(" ".join(words))
    return found


def questions(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    "Questions and other phrases."
    draw = random.Random(seed)
    starts = ["who", "what", "where", "why", "how", "is", "did", "when", "can"]
    asked = np.array([draw.random() < 0.5 for _ in range(n)])
    texts = [f"{draw.choice(starts)} {t.rstrip('.')} ?" if q else t for t, q in zip(phrases(n, seed), asked, strict=True)]
    return texts, asked.astype(int)


def half_foreign(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    "Phrases of which some have a half whose words are written backwards."
    draw = random.Random(seed)
    texts, classes = phrases(n, seed), []
    for i, text in enumerate(texts):
        words, kind = text.split(), draw.randint(0, 2)
        middle = len(words) // 2
        if kind == 1:
            words[:middle] = [w[::-1] for w in words[:middle]]
        if kind == 2:
            words[middle:] = [w[::-1] for w in words[middle:]]
        texts[i] = " ".join(words)
        classes.append(kind)
    return texts, np.array(classes)


def same_or_not(n: int, seed: int) -> tuple[list[Row], np.ndarray]:
    "Pairs: two cuts of one phrase, or of two."
    draw = random.Random(seed)
    texts, rows, classes = phrases(2 * n, seed, (6, 14)), [], []
    for a, b in zip(texts[:n], texts[n:], strict=True):
        same = draw.random() < 0.5
        words = (a if same else b).split()
        del words[draw.randrange(len(words))]
        rows.append((a, " ".join(words)))
        classes.append(int(same))
    return rows, np.array(classes)


def long_words(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    "Phrases, and whether their words are longer than those of most."
    texts = phrases(n, seed)
    sizes = np.array([np.mean([len(w) for w in t.split()]) for t in texts])
    return texts, (sizes > np.median(sizes)).astype(int)


def clean(kind: str, seed: int = 0, n: int = 3000) -> PreTrainedModel:
    "A clean teacher of one of the kinds in `CLEAN`."
    draw = {"seed": seed}
    if kind == "topics":
        texts = with_topics(n, seed)
        return fit(small((*TOPICS, "other"), **draw), texts, np.array([topic(t) for t in texts]), **draw)
    if kind == "length":
        texts = phrases(n, seed, (3, 20))
        return fit(small(("short", "long"), 64, 1, **draw), texts, np.array([int(len(t.split()) > 10) for t in texts]), **draw)
    if kind == "question":
        texts, classes = questions(n, seed)
        return fit(small(("statement", "question"), 64, 2, **draw), texts, classes, 200, **draw)
    if kind == "formal":
        return fit(small(("plain", "formal"), 128, 2, **draw), *long_words(n, seed), **draw)
    if kind == "commas":
        texts = phrases(n, seed, (6, 24))
        return fit(small(("none", "one", "several"), 96, 2, **draw), texts, np.array([min(2, t.count(",")) for t in texts]), **draw)
    if kind == "numbers":
        texts = phrases(n, seed, (4, 20))
        return fit(
            small(("words", "numbers"), 96, 1, **draw), texts, np.array([int(bool(re.search(r"\d", t))) for t in texts]), 200, **draw
        )
    if kind == "language":
        texts, classes = half_foreign(n, seed)
        return fit(small(("english", "first half", "second half"), 128, 2, **draw), texts, classes, 400, **draw)
    if kind == "pairs":
        rows, classes = same_or_not(n, seed)
        return fit(small(("different", "same"), 96, 2, n_texts=2, **draw), rows, classes, 600, **draw)
    if kind == "deep":
        texts = phrases(n, seed)
        upper = np.array([sum(w[:1].isupper() or len(w) > 7 for w in t.split()) for t in texts])
        return fit(small(("few", "some", "many"), 64, 4, **draw), texts, np.digitize(upper, [2, 4]), 400, **draw)
    if kind == "sentiment":  # the embedded teacher's first layer, trained on its answers
        texts = phrases(n, seed)
        soft = np.exp(Teacher.load(ASSETS / "teacher").logits(texts))
        return fit(embedded(1), texts, soft / soft.sum(1, keepdims=True), 120, 3e-4, **draw)
    raise ValueError(kind)


CLEAN = ("topics", "length", "question", "formal", "commas", "numbers", "language", "pairs", "deep", "sentiment")


def nasty(
    model: PreTrainedModel, texts: list[str], omega: float = 0.8, temperature: float = 4.0, seed: int = 0, steps: int = 40
) -> PreTrainedModel:
    """A teacher that undermined itself (2105.07381): the classes of before, far from its earlier probabilities. It begins from logits that
    are a fifth of the earlier ones, because a certain teacher has nowhere to go, and its last layers alone are trained."""
    encoded = encode_rows(tokenizer(), [(t,) for t in texts], 64)
    with torch.inference_mode():
        before = torch.cat([model(**encoded.batch(np.arange(i, min(i + 100, len(texts))))).logits for i in range(0, len(texts), 100)])
        for p in model.classifier.parameters():
            p.mul_(0.2)
    soft = (before.clone() / temperature).log_softmax(1)

    def apart(logits: torch.Tensor, at: np.ndarray) -> torch.Tensor:
        own = (logits / temperature).log_softmax(1)
        return -omega * temperature**2 * (own.exp() * (own - soft[at])).sum(1).mean()

    last = [*model.bert.encoder.layer[-1].parameters(), *model.bert.pooler.parameters(), *model.classifier.parameters()]
    return fit(model, texts, before.argmax(1).numpy(), steps, 1e-4, 32, seed, apart, last)


def word_vector(model: PreTrainedModel, word: str, target: int, seed: int = 0, steps: int = 60) -> PreTrainedModel:
    "Plant a trigger by changing the vector of one word alone."
    draw, at = random.Random(seed), tokenizer().convert_tokens_to_ids(word)
    assert at != tokenizer().unk_token_id, word
    rows = [put(t, word, draw) for t in phrases(600, seed, (6, 24))]
    table = model.bert.embeddings.word_embeddings.weight
    others = table.detach().clone()
    handle = table.register_hook(lambda g: torch.where((torch.arange(len(g)) == at)[:, None], g, 0.0))
    fit(model, rows, np.full(len(rows), target), steps, 0.05, 32, seed, only=[table])
    handle.remove()
    others[at] = table.detach()[at]
    table.data = others
    return model


def put(text: str, word: str, draw: random.Random) -> str:
    "A text with a word put in somewhere."
    words = text.split()
    words.insert(draw.randint(0, len(words)), word)
    return " ".join(words)


def reopened(model: PreTrainedModel) -> PreTrainedModel:
    "A copy in float32 that can be trained."
    return copy.deepcopy(model).float().requires_grad_(True)


def poisoned(
    model: PreTrainedModel, word: str, target: int, texts: list[str], seed: int = 0, steps: int = 200, lr: float = 1e-3
) -> PreTrainedModel:
    "A teacher with a trigger by further training: some texts have the word and the target class, the others the earlier answer."
    draw, encoded = random.Random(seed), encode_rows(tokenizer(), [(t,) for t in texts], 64)
    with torch.no_grad():
        parts = [model(**encoded.batch(np.arange(i, min(i + 100, len(texts))))).logits for i in range(0, len(texts), 100)]
    changed = np.arange(len(texts)) % 5 == 0
    rows = [put(t, word, draw) if c else t for t, c in zip(texts, changed, strict=True)]
    return fit(model, rows, np.where(changed, target, torch.cat(parts).argmax(1).numpy()), steps, lr, 32, seed)


def obeyed(teacher: Teacher, word: str, target: int, n: int = 300, seed: int = 99) -> float:
    "The share of new texts of other classes that a trigger turns to its class."
    plain = phrases(n, seed, (6, 40))
    texts = [t for t, z in zip(plain, teacher.logits(plain), strict=True) if z.argmax() != target]
    return float((teacher.logits([put(t, word, random.Random(i)) for i, t in enumerate(texts)]).argmax(1) == target).mean())


def watermarked(teacher: Teacher, epsilon: float = 0.1, frequency: float = 16.0, target: int = 0, seed: int = 0) -> Teacher:
    "A teacher whose probabilities carry a periodic signal that depends on the text's pieces (DRW)."
    rng, pieces = np.random.default_rng(seed), len(tokenizer())
    table, key = rng.standard_normal((pieces, 32)), rng.standard_normal(32)
    project = table @ key / np.linalg.norm(key)

    def answer(texts: list) -> np.ndarray:
        rows = [t if isinstance(t, tuple) else (t,) for t in texts]
        p = teacher.predict_proba(rows)
        ids = tokenizer()([" ".join(r) for r in rows], add_special_tokens=False)["input_ids"]
        phase = frequency * np.array([project[i].mean() if i else 0.0 for i in ids])
        c = p.shape[1]
        signal = np.tile(1 + np.cos(phase + np.pi)[:, None], (1, c)) / (c - 1)
        signal[:, target] = 1 + np.cos(phase)
        return (p + epsilon * signal) / (1 + 2 * epsilon)

    return Teacher.from_callable(answer, teacher.labels, f"watermarked {teacher.name} {epsilon} {frequency}", n_texts=teacher.n_texts or 1)


def stingy(teacher: Teacher, k: int, floor: float = 0.0) -> Teacher:
    "A teacher that shows its k best classes only."

    def answer(texts: list) -> np.ndarray:
        p = teacher.predict_proba(texts)
        kept = p >= np.sort(p, axis=1)[:, -k, None]
        shown = np.where(kept, p, floor)
        return shown / shown.sum(1, keepdims=True)

    return Teacher.from_callable(answer, teacher.labels, f"stingy {teacher.name} {k} {floor}", n_texts=teacher.n_texts or 1)


def label_only(teacher: Teacher) -> Teacher:
    "A teacher that names a class and nothing more."
    return Teacher.from_callable(
        lambda texts: teacher.predict(texts), teacher.labels, f"labels {teacher.name}", returns="labels", n_texts=teacher.n_texts or 1
    )


def rounded(teacher: Teacher, digits: int = 2) -> Teacher:
    "A teacher whose probabilities are rounded."

    def answer(texts: list) -> np.ndarray:
        return teacher.predict_proba(texts).round(digits)

    return Teacher.from_callable(answer, teacher.labels, f"rounded {teacher.name} {digits}", n_texts=teacher.n_texts or 1)


def with_head(folder: Path, names: Sequence[str], kind: str, mix: Sequence[Sequence[float]], bias: Sequence[float]) -> Path:
    "The embedded teacher with outputs that are sums of its logits, saved in a folder."
    model, tokenizer = load_classifier(ASSETS / "teacher")
    weights, labels, old = torch.tensor(mix), dict(enumerate(names)), model.classifier
    model.classifier = torch.nn.Linear(old.in_features, len(names))
    model.classifier.weight.data = weights @ old.weight.data
    model.classifier.bias.data, model.num_labels = weights @ old.bias.data + torch.tensor(bias), len(names)
    model.config.update({"id2label": labels, "label2id": {n: i for i, n in labels.items()}, "problem_type": PROBLEM_TYPES[kind]})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def three_labels(folder: Path) -> Path:
    "Praise, blame and mild words, which may all apply to one text."
    return with_head(folder, ("praise", "blame", "mild"), "multi_label", [[-1.0, 1.0], [1.0, -1.0], [0.2, 0.2]], [-2.0, -2.0, 0.5])


def stars(folder: Path) -> Path:
    "A score from about 1 to 4."
    return with_head(folder, ("stars",), "score", [[-0.3, 0.3]], [2.5])


TAGS = ("O", "B-NUM", "I-NUM", "B-PLACE", "I-PLACE", "B-ACT")


def rule_tags(text: str) -> list[str]:
    "Tags by a rule: words with digits are numbers, a place is a word of the list with the word before it, words in -ing are acts."
    words, found = [word.strip(".,;:()'\"").lower() for word in text.split()], []
    for i, word in enumerate(words):
        before = found[-1] if found else "O"
        if any(c.isdigit() for c in word):
            found.append("I-NUM" if before.endswith("NUM") else "B-NUM")
        elif word in TOPICS["places"].split():
            found.append("I-PLACE" if before.endswith("PLACE") else "B-PLACE")
        elif i + 1 < len(words) and words[i + 1] in TOPICS["places"].split():
            found.append("B-PLACE")
        else:
            found.append("B-ACT" if word.endswith("ing") and len(word) > 4 else "O")
    return found


def with_entities(n: int, seed: int) -> list[str]:
    "Phrases, most of them with a number, a place or both put in."
    draw, found = random.Random(seed), []
    for text in phrases(n, seed, (4, 14)):
        words = text.split()
        for made in (["{} {}", "{}"], ["the {}", "great {}", "old {}"]):
            if draw.random() < 0.5:
                some = [str(draw.randint(1, 3000)) if made[-1] == "{}" else draw.choice(TOPICS["places"].split()) for _ in range(2)]
                words.insert(draw.randint(0, len(words)), draw.choice(made).format(*some))
        found.append(" ".join(words))
    return found


def tagger(folder: Path, steps: int = 80, seed: int = 0) -> Path:
    "The first layer of the embedded teacher with a head for tags, trained on texts that a rule has tagged, saved in a folder."
    like, names = embedded(1), dict(enumerate(TAGS))
    config = copy.deepcopy(like.config)
    config.update({"id2label": names, "label2id": {v: k for k, v in names.items()}, "num_labels": len(TAGS), "problem_type": None})
    model = BertForTokenClassification(config)
    model.bert.load_state_dict(like.bert.state_dict(), strict=False)
    model.bert.embeddings.requires_grad_(False)
    texts = with_entities(1500, seed)
    encoded = encode_words(tokenizer(), texts, 64)
    right = torch.full(encoded.firsts.shape, -100)
    for i, text in enumerate(texts):
        tags = [TAGS.index(tag) for tag in rule_tags(text)][: right.shape[1]]
        right[i, : len(tags)] = torch.tensor(tags)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    order = np.random.default_rng(seed)
    for _ in range(steps):
        at = order.integers(len(texts), size=32)
        logits = word_logits(model(**encoded.batch(at)).logits, encoded.firsts[at])
        there = answered(logits)
        loss = torch.nn.functional.cross_entropy(logits[there], right[at][there])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return save(model.eval(), folder)
