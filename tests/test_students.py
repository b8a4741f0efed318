"""Students and teachers: other kinds of models, damaged files, a full disk."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from zskd.core import count_parameters
from zskd.errors import RunError, UserError
from zskd.fine_tuning import fine_tune
from zskd.starts import piece_states
from zskd.students import EMBEDDED, Student, embedded_start
from zskd.tasks import Task
from zskd.teachers import Teacher
from zskd.vocabularies import learn_vocabulary, trim_vocabulary

TEXTS = ["the cat sat on the mat", "a dog ran to the river", "nobody knows the answer to it", "two men read a book"] * 5
LABELS = ["yes", "no", "maybe"]


def make_teacher(config_class, n_texts, tokenizer=None, **sizes):
    "A random teacher that answers by chance, of any architecture."
    tokenizer = tokenizer or learn_vocabulary(TEXTS, 200)
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {x: i for i, x in enumerate(LABELS)}}
    model = AutoModelForSequenceClassification.from_config(config_class(vocab_size=len(tokenizer), **names, **sizes)).eval()

    def logits(rows):
        return np.random.default_rng(len(rows)).normal(size=(len(rows), 3)).astype(np.float32)

    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        labels=tuple(LABELS),
        n_params=count_parameters(model),
        n_texts=n_texts,
        name="random",
        logits=logits,
        queries=0,
        kind="single_label",
    )


BERT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
KINDS = {
    "bert": (BertConfig, BERT, "words and layers"),
    "electra": (ElectraConfig, {**BERT, "embedding_size": 24}, "words"),
    "distilbert": (DistilBertConfig, {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}, "words"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_texts", [1, 2])
def test_other_teachers(kind, n_texts):
    config, sizes, taken = KINDS[kind]
    teacher = make_teacher(config, n_texts, **sizes)
    student = Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS, family="attention")
    assert student.notes["init"] == f"the teacher's {taken}"
    assert student.n_params <= 30_000 and len(student.tokenizer) == 60
    assert np.isfinite(student.logits([("the cat", "a dog")[:n_texts]])).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "n_texts"), [("convolution", 1), ("convolution", 2), ("static", 1)])
def test_other_families(kind, family, n_texts):
    "Without attention the kind of teacher makes no difference: only its last states are read."
    config, sizes, _ = KINDS[kind]
    teacher = make_teacher(config, n_texts, **sizes)
    student = Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS, family=family, sensitivity=False)
    assert student.notes["init"] == "the teacher's states of single pieces" and student.notes["word_queries"] == teacher.queries == 60
    assert student.n_params <= 30_000 and len(student.tokenizer) == 60
    rows = [("the cat", "a dog")[:n_texts], ("two men read a book", "the cat")[:n_texts]]
    assert np.isfinite(student.logits(rows)).all() and np.allclose(student.logits(rows)[:1], student.logits(rows[:1]), atol=1e-5)


@pytest.mark.parametrize(("family", "n_texts"), [("convolution", 1), ("convolution", 2), ("static", 1)])
@pytest.mark.parametrize("init", ["teacher", "words", "random"])
def test_pieces_that_share_rows(tmp_path, family, n_texts, init):
    "The table has the rows that were asked for, and the student is the same after saving and loading."
    teacher = make_teacher(BertConfig, n_texts, **BERT)
    how = {"n_params": 30_000, "vocab_size": 60, "corpus": TEXTS, "family": family, "init": init, "sensitivity": False}
    made = Student.create(teacher, hash_rows=20, **how)
    assert made.n_params <= 30_000 and len(made.tokenizer) == 60 and made.model.base_model.embeddings.word_embeddings.table.shape[0] == 20
    assert ("% of their variance" in made.notes["init"]) == (init == "teacher")
    made.save(tmp_path)
    rows = [("the cat", "a dog")[:n_texts], ("two men read a book", "the cat")[:n_texts]]
    assert np.array_equal(Student.load(tmp_path).logits(rows), made.logits(rows)) and np.isfinite(made.logits(rows)).all()
    with pytest.raises(UserError, match="hash_rows=60: must be fewer than the 60 pieces"):
        Student.create(teacher, hash_rows=60, **how)


def test_a_student_of_pairs_without_attention_is_loaded_before_it_is_trained(tmp_path):
    "A batch of single texts, which is what loading tries too, has no other text to align with; padding must not take its place."
    teacher = make_teacher(BertConfig, 2, **BERT)
    made = Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS, family="convolution", sensitivity=False)
    with torch.no_grad():
        made.model.comparison.compare.weight *= 100
    made.save(tmp_path)
    rows = [("the cat", "a dog"), ("two men read a book", "the cat")]
    assert np.allclose(Student.load(tmp_path).logits(rows), made.logits(rows), atol=1e-5)


def test_a_teacher_with_other_pieces_reads_them_as_texts():
    "A byte-level teacher has no WordPiece vocabulary, so the student's is learned, and the teacher reads each piece as a text."
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(TEXTS, vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False)
    learned.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, **names)
    teacher = make_teacher(RobertaConfig, 1, tokenizer, pad_token_id=1, max_position_embeddings=64, **BERT)
    student = Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS)
    assert student.notes["init"] == "the teacher's states of single pieces" and np.isfinite(student.logits(TEXTS[:4])).all()
    piece = student.tokenizer.get_vocab()["the"]
    states = piece_states(teacher.model, tokenizer, student.tokenizer)
    with torch.no_grad():
        alone = teacher.model.base_model(**tokenizer("the", return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0].mean(0)
    assert np.allclose(states[piece], alone, atol=1e-5)


def test_larger_than_the_teacher():
    "More width, heads and units than the teacher has: the rest stays random, and nothing is zero for good."
    teacher = make_teacher(BertConfig, 1, **BERT)
    student = Student.create(teacher, preset="bert-tiny", corpus=TEXTS)
    for name, p in student.model.named_parameters():
        if p.dim() == 2 and "attention" in name:
            assert (p.abs().sum(1) > 0).all() and (p.abs().sum(0) > 0).all(), name


def test_other_labels_keep_a_fresh_classifier():
    teacher = make_teacher(BertConfig, 1, **BERT)
    student = Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS, labels=["a", "b"])
    assert student.labels == ("a", "b") and student.logits(["the cat"]).shape == (1, 2)


def test_trim_with_the_old_post_processor():
    "Tokenizers of older BERT folders name [SEP] and [CLS] by id in a BertProcessing."
    tokenizer = learn_vocabulary(TEXTS, 200)
    ends = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("[SEP]", "[CLS]")]
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(*ends)
    small, kept = trim_vocabulary(tokenizer, 60, TEXTS)
    want = tokenizer("the cat", "a dog")["input_ids"]
    got = kept[small("the cat", "a dog")["input_ids"]].tolist()
    assert got[0] == want[0] and got[-1] == want[-1]


def test_tokens_that_were_added_to_a_teacher_are_kept():
    "Tokens added for links and names have numbers behind the vocabulary's own."
    tokenizer = learn_vocabulary(TEXTS, 200)
    tokenizer.add_tokens(["<url>", "<user>"])
    small, kept = trim_vocabulary(tokenizer, 150, TEXTS)
    assert tokenizer.convert_ids_to_tokens(kept.tolist()) == small.convert_ids_to_tokens(range(len(small)))
    assert small.tokenize("the cat <url> sat") == ["the", "cat", "<url>", "sat"]
    teacher = make_teacher(BertConfig, 1, tokenizer, **BERT)
    student = Student.create(teacher, n_params=30_000, corpus=TEXTS, sensitivity=False)
    assert "<url>" in student.tokenizer.get_vocab() and np.isfinite(student.logits(["see <url> , <user>"])).all()


@pytest.fixture
def saved(tmp_path):
    teacher = make_teacher(BertConfig, 1, **BERT)
    return Student.create(teacher, n_params=30_000, vocab_size=60, corpus=TEXTS).save(tmp_path / "student")


def test_a_student_that_was_used_is_saved_as_one_that_was_not(saved, tmp_path):
    "A tokenizer remembers how it was called last, which is no part of a student."
    student = Student.load(saved)
    before = (student.save(tmp_path / "new") / "tokenizer.json").read_text()
    student.tokenizer(["the cat", "a dog ran to the river"], padding=True, truncation=True, max_length=16)
    used = (student.save(tmp_path / "used") / "tokenizer.json").read_text()
    assert json.loads(used) == json.loads(before) and json.loads(used)["padding"] is json.loads(used)["truncation"] is None


def test_damaged_folders(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="damaged"):
        Student.load(saved)
    weights.unlink()
    with pytest.raises(UserError, match="no weights"):
        Student.load(saved)
    with pytest.raises(UserError, match="no such folder"):
        Student.load(saved / "elsewhere" / "still")


def test_full_disk_keeps_the_old_student(saved, monkeypatch):
    student = Student.load(saved)
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(student.tokenizer, "save_pretrained", full)
    with pytest.raises(RunError, match="free some space"):
        student.save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["student"]


def test_saved_configuration_names_the_labels(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["id2label"] == {"0": "yes", "1": "no", "2": "maybe"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_encoder_is_no_teacher_and_no_student(tmp_path, kind):
    config, sizes, _ = KINDS[kind]
    teacher = make_teacher(config, 1, **sizes)
    AutoModel.from_config(teacher.model.config).save_pretrained(tmp_path)
    teacher.tokenizer.save_pretrained(tmp_path)
    for load in (Teacher.load, Student.load):
        with pytest.raises(UserError, match=f"{tmp_path.name}: has no trained classifier .*weight is missing"):
            load(tmp_path)
    teacher.model.save_pretrained(tmp_path)
    assert Teacher.load(tmp_path).labels == Student.load(tmp_path).labels == tuple(LABELS)


@pytest.mark.parametrize(
    ("normalizer", "lowercase", "same"),
    [
        (None, None, False),
        (None, True, True),
        (normalizers.Lowercase(), None, True),
        (normalizers.Lowercase(), False, False),
        (normalizers.NFC(), None, False),
    ],
)
def test_case_is_as_the_teacher_has_it(normalizer, lowercase, same):
    "A teacher with another kind of pieces: its normalizer tells whether case is dropped."
    teacher = make_teacher(BertConfig, 1, **BERT)
    engine = Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [], unk_token="[UNK]"))
    if normalizer is not None:
        engine.normalizer = normalizer
    teacher.tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="[UNK]")
    texts = TEXTS + [t.upper() for t in TEXTS]
    small = Student.create(teacher, n_params=40_000, vocab_size=200, corpus=texts, lowercase=lowercase).tokenizer
    assert (small.tokenize("THE CAT") == small.tokenize("the cat")) is same


def test_full_disk_after_fine_tuning(tmp_path, monkeypatch):
    teacher = make_teacher(BertConfig, 1, **BERT)
    teacher.model.config.problem_type = "multi_label_classification"  # no teacher, but good enough for a base
    for part in (teacher.model, teacher.tokenizer):
        part.save_pretrained(tmp_path / "base")
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{i % 2}\n" for i, t in enumerate(TEXTS)))
    task = Task("animals", ("no", "yes"), ("text",), folder="data")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert "accuracy" in fine_tune(task, tmp_path / "base", tmp_path / "out", tmp_path, epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}

    def full(self, folder, **kwargs):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", full)
    for out in ("out", "new"):
        with pytest.raises(RunError, match=f"{out}: cannot be written .* free some space"):
            fine_tune(task, tmp_path / "base", tmp_path / out, tmp_path, epochs=1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert not list((tmp_path / "new").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data", "new", "out"]


def test_a_stopped_move_leaves_no_mixture(saved, monkeypatch):
    "The second file cannot be moved: half of the files are new, and the folder is refused until it is whole."
    student, moved, move = Student.load(saved), [], os.replace

    def replace(source, target):
        if Path(target).parent == saved.resolve():
            moved.append(Path(target).name)
            if len(moved) == 2:
                raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(RunError, match="cannot be written"):
        student.save(saved)
    with pytest.raises(UserError, match="no config.json"):
        Student.load(saved)
    student.save(saved)
    assert moved[-2:] == ["config.json", "README.md"]  # the card says nothing that loading needs
    assert np.allclose(Student.load(saved).logits(["the cat"]), student.logits(["the cat"]))


@pytest.mark.parametrize("n_texts, start", [(2, "compact-small"), (1, "the teacher's states of single pieces")])
def test_pairs_start_from_the_embedded_encoder_of_their_size(n_texts, start):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["compact-small"])
    teacher = make_teacher(BertConfig, n_texts, tokenizer=tokenizer, **BERT)
    student = Student.create(teacher, n_params=757_000, corpus=TEXTS)
    assert student.notes["init"] == start and student.n_params <= 757_000
    assert Student.create(teacher, n_params=757_000, corpus=TEXTS, init="random").notes["init"] == "random"
    assert embedded_start(make_teacher(BertConfig, n_texts, **BERT), 757_000, LABELS) == "teacher"  # other pieces
