"""Teachers of many kinds: each answers what transformers answers to one text alone, or is refused in one line. All are tiny, and their
weights are random."""

import ast
import json
import os
import pty
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    ConvBertConfig,
    FunnelConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

import zskd
from zskd.cli import explain, main
from zskd.core import ASSETS, digest
from zskd.errors import UserError
from zskd.evaluation import evaluate
from zskd.methods.hidden import shows_states
from zskd.models import load_classifier, load_masked_lm, reading_limit, weights_digest
from zskd.pools import Recipe, ood_pool
from zskd.students import Student
from zskd.tasks import Examples, Task
from zskd.teachers import Teacher, _choose_padding, _reader_of
from zskd.training import Distiller
from zskd.vocabularies import learn_vocabulary
from zskd.written import CausalWriter

WORDS = [
    "the",
    "a",
    "of",
    "and",
    "river",
    "winter",
    "film",
    "bridge",
    "song",
    "is",
    "was",
    "good",
    "bad",
    "old",
    "quiet",
    "near",
    "far",
    "slowly",
    "never",
    "we",
    "they",
    "saw",
    "heard",
    ".",
    ",",
    "?",
]
MARKS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
PAD, BEGIN, END = 0, 1, 2
TEXTS = ["good", "the river is near", "we saw a film and heard the old song of winter , slowly", "bad .", "never " * 200, "a quiet bridge"]
PAIRS = list(zip(TEXTS, TEXTS[2:] + TEXTS[:2], strict=True))
SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
N = {"vocab_size": len(MARKS) + len(WORDS)}
NAMES = {"id2label": {0: "bad", 1: "good", 2: "fair"}, "label2id": {"bad": 0, "good": 1, "fair": 2}}
SIDES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}


def words(single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", pad="<pad>", **more):
    "A tokenizer of whole words that writes its marks like these templates; without them it writes none."
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(MARKS + WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if single:
        made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("<s>", BEGIN), ("</s>", END)])
    given = {"pad_token": pad} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", mask_token="<mask>", **given, **more
    )


PLAIN = {"single": None, "model_input_names": ["input_ids", "attention_mask"]}
GPT2 = {**N, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": BEGIN, "eos_token_id": END, **NAMES}
T5 = {
    **N,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": PAD,
    **NAMES,
}
XLNET = {
    **N,
    "d_model": 16,
    "n_layer": 1,
    "n_head": 2,
    "d_inner": 16,
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    **NAMES,
}
FUNNEL = {**N, "block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 16, "pad_token_id": PAD, **NAMES}
BART = {
    **N,
    **SIDES,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "decoder_start_token_id": END,
    **NAMES,
}
LLAMA = {**N, **SIZE, "num_key_value_heads": 2, "bos_token_id": BEGIN, "eos_token_id": END, **NAMES}
KINDS = {  # name: configuration, tokenizer, what the warning about padding says
    "bert": (lambda: BertConfig(**N, **SIZE, **NAMES), {}, None),
    "gpt2, padding in the configuration": (lambda: GPT2Config(pad_token_id=END, **GPT2), {**PLAIN, "pad": None}, None),
    "gpt2, other padding in the tokenizer": (lambda: GPT2Config(pad_token_id=END, **GPT2), {**PLAIN, "pad": "<mask>"}, None),
    "gpt2, no padding": (lambda: GPT2Config(**GPT2), {**PLAIN, "pad": None}, "has no padding token"),
    "llama, padding in the tokenizer": (lambda: LlamaConfig(**LLAMA), {**PLAIN, "padding_side": "left"}, None),
    "xlnet": (
        lambda: XLNetConfig(**XLNET),
        {"single": "$A </s> <s>:2", "pair": "$A </s> $B:1 </s>:1 <s>:2", "padding_side": "left", "pad_token_type_id": 3},
        None,
    ),
    "convbert": (lambda: ConvBertConfig(embedding_size=16, **N, **SIZE, **NAMES), {}, "padding changes its answers"),
    "t5": (lambda: T5Config(**T5), {"single": "$A </s>", "pair": "$A </s> $B </s>"}, None),
    "bart": (lambda: BartConfig(**BART), {"pair": "<s> $A </s> </s> $B </s>"}, None),
    "funnel": (lambda: FunnelConfig(**FUNNEL), {}, None),
}


def save(folder, config, tokenizer, auto=AutoModelForSequenceClassification, **change):
    "Write a model with weights large enough to tell texts apart; the keyword arguments replace entries of its config.json."
    torch.manual_seed(0)
    model = auto.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = Path(folder) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return folder


def bert(folder, auto=AutoModelForSequenceClassification, **change):
    return save(folder, BertConfig(**N, **SIZE, **NAMES), words(), auto, **change)


def alone(folder, rows, max_length=128):
    "What transformers answers to one input at a time."
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        asked = [
            tokenizer(*(row if isinstance(row, tuple) else (row,)), truncation=True, max_length=max_length, return_tensors="pt")
            for row in rows
        ]
        return np.concatenate([model(**one).logits.numpy() for one in asked])


def refused(load, *said):
    "The single line that a call is refused with."
    with pytest.raises(UserError) as e:
        load()
    line = str(e.value)
    assert "\n" not in line and all(word in line for word in said), line
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_gets_the_answer_it_gets_alone(kind, tmp_path):
    config, tokenizer, warning = KINDS[kind]
    save(tmp_path, config(), words(**tokenizer))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        teacher = Teacher.load(tmp_path, precision="fp32", max_length=64)
    about = [str(w.message) for w in told if "padding" in str(w.message)]
    assert (len(about) == 1 and warning in about[0]) if warning else not about
    for rows in (TEXTS, PAIRS):
        expected = alone(tmp_path, rows, 64)
        assert np.abs(teacher.logits(rows) - expected).max() < 1e-4 * max(1, np.abs(expected).max())
        assert np.ptp(expected, axis=0).max() > 0.05  # the answers do differ


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_end_mark_inside_a_text(kind, tmp_path):
    config, tokenizer, _ = KINDS[kind]
    save(tmp_path, config(), words(**tokenizer))
    rows = [*TEXTS, "good </s> bad", "</s>", "we saw </s> </s> a bridge"]
    teacher = Teacher.load(tmp_path, precision="fp32", max_length=64)
    assert np.abs(teacher.logits(rows) - alone(tmp_path, rows, 64)).max() < 1e-4


class Mixing(torch.nn.Module):
    "A model that adds to each answer the mean of all answers of its batch."

    def __init__(self, model):
        super().__init__()
        self.inner, self.config, self.device, self.dtype = model, model.config, model.device, model.dtype

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        out = self.inner(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        out.logits = out.logits + out.logits.mean(0)
        return out


def test_a_model_that_mixes_its_batch_is_refused(tmp_path):
    model, tokenizer = load_classifier(bert(tmp_path))
    read = _reader_of(model, tokenizer, 64)
    assert _choose_padding("teacher whole", model, tokenizer, read)[0].side == "right"
    refused(
        lambda: _choose_padding("teacher mixing", Mixing(model), tokenizer, read),
        "teacher mixing",
        "changes with the other texts of the batch",
    )


HEADS = {
    "answers questions": (AutoModelForQuestionAnswering, {}, ("marks answers",)),
    "fills masks": (AutoModelForMaskedLM, {}, ("fills in masked words",)),
    "gives scores": (AutoModelForSequenceClassification, {"problem_type": "regression"}, ("3 scores", "regression")),
    "two names for three": (
        AutoModelForSequenceClassification,
        {"id2label": {"0": "a", "1": "b"}, "label2id": {}},
        ("2 classes (a, b)", "has 3", "id2label"),
    ),
    "a gap": (AutoModelForSequenceClassification, {"id2label": {"0": "a", "1": "b", "3": "c"}}, ("0, 1, 3", "0 to 2")),
    "a name twice": (AutoModelForSequenceClassification, {"id2label": {"0": "a", "1": "b", "2": "a"}}, ("two classes named 'a'",)),
    "a short table": (AutoModelForSequenceClassification, {"vocab_size": 9}, ("embeddings", "config.json")),
    "odd sizes": (AutoModelForSequenceClassification, {"hidden_size": "wide"}, ("cannot be loaded",)),
    "no heads": (AutoModelForSequenceClassification, {"num_attention_heads": 0}, ("cannot be loaded",)),
}


@pytest.mark.parametrize("case", HEADS)
def test_what_is_no_text_classifier_is_refused_in_one_line(case, tmp_path):
    auto, change, said = HEADS[case]
    refused(lambda: Teacher.load(bert(tmp_path, auto, **change)), str(tmp_path), *said)


def test_without_architectures_the_weights_decide(tmp_path):
    assert Teacher.load(bert(tmp_path, architectures=None), max_length=64).labels == ("bad", "good", "fair")
    refused(lambda: Teacher.load(bert(tmp_path / "mlm", AutoModelForMaskedLM, architectures=None)), "no trained classifier")


def test_a_vocabulary_that_is_larger_than_the_table(tmp_path):
    tokenizer = words()
    tokenizer.add_tokens(["brook", "creek"])
    save(tmp_path, BertConfig(**N, **SIZE, **NAMES), tokenizer)
    said = f"tokens up to number {N['vocab_size'] + 1}", f"has {N['vocab_size']} rows"
    for load in (Teacher.load, Student.load, load_classifier):
        refused(lambda load=load: load(tmp_path), *said)


def test_an_adapter_is_told_how_to_be_merged(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/encoder"}))
    for load in (Teacher.load, Student.load, load_masked_lm, CausalWriter.load):
        refused(lambda load=load: load(tmp_path), "LoRA", "merge_and_unload", "save_pretrained")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b'{"a": ', b"[1, 2]", b"\xff\xfe\x00", b"", b"[" * 100_000, b'{"model": {"type": "Nothing"}}'])
def test_damaged_files_of_a_model(file, content, tmp_path):
    bert(tmp_path)
    (tmp_path / file).write_bytes(content)
    if file == "tokenizer_config.json" and content.startswith(b'{"model'):
        return  # nothing in it is wrong: what is not said there is taken from tokenizer.json
    refused(lambda: Teacher.load(tmp_path), str(tmp_path))


def test_roberta_reads_two_tokens_less_than_it_says(tmp_path):
    config = RobertaConfig(max_position_embeddings=34, pad_token_id=1, **N, **SIZE, **NAMES)
    save(tmp_path, config, words())
    for asked in (32, 33, 34):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            teacher = Teacher.load(tmp_path, precision="fp32", max_length=asked)
        assert teacher.max_length == 32 and [f"{asked} is more than the 32" in str(w.message) for w in told] == [True] * (asked > 32)
        assert np.abs(teacher.logits(TEXTS) - alone(tmp_path, TEXTS, 32)).max() < 1e-4
    refused(lambda: Teacher.load(tmp_path, max_length=200), "at most 32")


OWN_CODE = "import pathlib\npathlib.Path('it_ran').touch()\n"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    "A model that brings code of its own for everything; wherever that runs, it leaves a file."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    classes = dict.fromkeys(
        ("AutoModelForSequenceClassification", "AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModel"), "own.Model"
    )
    folder = bert(tmp_path / "stranger", model_type="own", auto_map={"AutoConfig": "own.Config", **classes})
    (folder / "own.py").write_text(OWN_CODE)
    return folder


def test_code_that_comes_with_a_model_is_never_run(stranger, tmp_path):
    teacher = Teacher.load(ASSETS / "teacher")
    loads = [Teacher.load, Student.load, load_masked_lm, CausalWriter.load, load_classifier, lambda f: Student.create(teacher, init=f)]
    for load in loads:
        refused(lambda load=load: load(stranger), "its own code", "never run")
    assert not (tmp_path / "it_ran").exists()


def test_a_tokenizer_brings_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = bert(tmp_path / "m")
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (folder / "own.py").write_text(OWN_CODE)
    with pytest.warns(UserWarning, match="its own code, which is not run; .* reads its tokenizer files"):
        assert (
            np.abs(Teacher.load(folder, precision="fp32", max_length=64).logits(TEXTS) - alone(bert(tmp_path / "n"), TEXTS, 64)).max()
            < 1e-4
        )
    assert not (tmp_path / "it_ran").exists()


def test_a_known_model_with_code_of_its_own_says_that_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = bert(tmp_path / "m", auto_map={"AutoModelForSequenceClassification": "own.Model"})
    (folder / "own.py").write_text(OWN_CODE)
    with pytest.warns(UserWarning, match="not run"):
        Teacher.load(folder, max_length=64)
    assert not (tmp_path / "it_ran").exists()


def test_nobody_is_asked_on_a_terminal(stranger, tmp_path):
    "The command in a pseudo-terminal, on which somebody has already typed a yes."
    ours, theirs = pty.openpty()
    os.write(ours, b"y\ny\n")
    command = [str(Path(sys.executable).with_name("zskd"))]
    process = subprocess.Popen(
        [*command, "distill", "--teacher", str(stranger), "--out", "run"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 2 and not (tmp_path / "it_ran").exists()
    lines = [line for line in said.decode().splitlines() if line.strip() not in ("y", "")]
    assert len(lines) == 1 and "never run" in lines[0] and "[y/N]" not in said.decode(), lines


def test_every_call_says_that_code_is_not_trusted():
    for file in Path(zskd.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
                said = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert said.get("trust_remote_code", "nothing") is False, f"{file.name}:{node.lineno}"


def test_a_teacher_that_reads_more_is_scored_on_more(tmp_path):
    bert(tmp_path)
    with pytest.warns(UserWarning, match="reads up to 512 tokens .* first 128 .* scored on 512"):
        teacher = Teacher.load(tmp_path, precision="fp32")
    long = [("good " * 300,), ("the river",), ("bad " * 140,), ("a film",)]
    assert teacher.max_length == 128 and teacher.truncated(long) == 0.5
    assert np.abs(teacher.logits(long) - alone(tmp_path, long)).max() < 1e-4
    task = Task("mine", ("bad", "good", "fair"), ("text",))
    scored = teacher.for_task(Task("mine", ("good", "fair", "bad"), ("text",))).for_scoring()
    assert np.abs(scored.logits(long) - alone(tmp_path, long, 512)[:, [1, 2, 0]]).max() < 1e-4
    assert scored.fingerprint != teacher.fingerprint
    student = Student.create(teacher, n_params=150_000, corpus=TEXTS * 9, vocab_size=150, max_length=64)
    report = evaluate(teacher, student, Examples(long, np.array([0, 1, 2, 0]), task), timed=0)
    assert report["cut"] == {"teacher": 0.0, "student": 0.5} and report["teacher"]["max_length"] == 512
    assert "truncated inputs" in report.table() and "50.0 %" in report.to_html()
    told = Teacher.load(tmp_path, precision="fp32", max_length=128)  # whoever says how much is taken at their word
    assert (
        told.for_scoring() is told
        and evaluate(told, student, Examples(long, np.array([0, 1, 2, 0]), task), timed=0)["cut"]["teacher"] == 0.5
    )


def test_the_share_of_rows_that_were_cut_is_in_the_statistics_of_a_pool():
    short, whole = (Teacher.load(ASSETS / "teacher", max_length=n) for n in (12, 128))
    task = Task("mine", short.labels, ("text",))
    pool = ood_pool(task, "sample", 40, short, Recipe.for_task(task))
    cut = np.mean([len(short.tokenizer(text)["input_ids"]) > 12 for (text,) in pool.rows()])
    assert 0 < cut < 1 and pool.stats()["cut"] == pytest.approx(cut, abs=1e-4)
    assert f"longer than the teacher reads: {cut:.1%}" in repr(pool.stats()) and f"{cut:.1%}" in pool.stats()._repr_html_()
    assert pool.stats(teacher=whole)["cut"] < cut


@pytest.mark.parametrize(
    ("kind", "shown"), [("t5", False), ("funnel", False), ("convbert", False), ("bart", True), ("bert", True), ("xlnet", True)]
)
def test_pairs_run_on_answers_alone_where_states_cannot_be_read(kind, shown, tmp_path):
    config, tokenizer, _ = KINDS[kind]
    save(tmp_path / "teacher", config(), words(**tokenizer))
    teacher = Teacher.load(tmp_path / "teacher", precision="fp32", max_length=64)
    assert shows_states(teacher) is shown
    if kind == "t5":
        task = Task("same", teacher.labels, ("one", "two"), relation="paraphrase")
        rows = [(f"{a} {b}", c) for a in WORDS[:8] for b in WORDS[8:12] for c in ("the film is old", "a quiet river")]
        student = Student.create(teacher.for_task(task), n_params=150_000, corpus=TEXTS * 9, vocab_size=150, n_texts=2, max_length=32)
        with pytest.warns(UserWarning, match="no usable hidden states"):
            run = Distiller(teacher.for_task(task), student, rows, tmp_path / "run", task=task, steps=2, batch_size=8, device="cpu")
        assert run.settings.hidden == 0 and run.fit().logits(rows[:3]).shape == (3, 3)


def test_a_vocabulary_of_a_billion(tmp_path, capsys):
    teacher = Teacher.load(ASSETS / "teacher")
    refused(lambda: Student.create(teacher, vocab_size=10**9), "vocab_size=1000000000", "at most 1000000")
    refused(lambda: learn_vocabulary(TEXTS, 10**9), "at most 1000000")
    assert (
        main(["distill", "--teacher", str(ASSETS / "teacher"), "--n", "60", "--vocab-size", "1000000000", "--out", str(tmp_path / "run")])
        == 2
    )
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--vocab-size" in said


def test_memory_that_runs_out_is_one_line(tmp_path, monkeypatch, capsys):
    said = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"
    for error in (MemoryError(), RuntimeError(said), OSError(12, "Cannot allocate memory")):
        code, line = explain(error, "label", [])
        assert code == 1 and line.startswith("out of memory; ") and "--batch-size" in line

    def full(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr("torch.nn.Linear.forward", full)
    assert main(["distill", "--teacher", str(ASSETS / "teacher"), "--n", "60", "--out", str(tmp_path / "run")]) == 1
    assert "out of memory" in capsys.readouterr().err.splitlines()[-1]


def test_the_name_of_an_ordinary_teacher_is_what_it_was():
    "Answers that are kept under it stay valid."
    teacher = Teacher.load(ASSETS / "teacher", precision="fp32")
    pieces = AutoTokenizer.from_pretrained(ASSETS / "teacher").backend_tokenizer.to_str()
    assert teacher.fingerprint == digest("model", weights_digest(teacher.model), pieces, "128", "torch.float32")
    assert reading_limit(teacher.model, teacher.tokenizer) == 128
