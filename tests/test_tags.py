"Teachers that give every word a tag, from the teacher to the report, and what refuses them."

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_teachers import TAGS, embedded, rule_tags, save, stars, tagger, with_entities
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerFast, pipeline

import zskd
from zskd.audit import audit
from zskd.callbacks import Callback
from zskd.cascades import Cascade
from zskd.cli import main as zskd_command
from zskd.core import read_json
from zskd.errors import UserError
from zskd.evaluation import evaluate
from zskd.export import export_onnx
from zskd.fine_tuning import fine_tune
from zskd.kinds import predictions
from zskd.methods.hidden import HiddenStates
from zskd.methods.index import METHODS, make_adversary, make_methods
from zskd.pools import Pool, ood_pool
from zskd.shapes import CnnShape
from zskd.side_by_side import Answers
from zskd.students import Student
from zskd.tags import NO_TAG, answered, fit_width, stacked
from zskd.tasks import TASKS, Examples, Task
from zskd.teachers import Teacher
from zskd.tokens import encode_words
from zskd.training import Distiller

SMALL = {"n": 1200, "n_params": 300_000, "vocab_size": 3000, "steps": 240, "batch_size": 32, "max_length": 64}
TEXT = "the old city had 12 300 people in 1999 ."


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Where the teacher is, and plain text."
    place = tmp_path_factory.mktemp("tags")
    (place / "plain.txt").write_text("\n\n".join(f"{text}." for text in with_entities(2500, 3)))
    return tagger(place / "teacher").parent


@pytest.fixture(scope="module")
def teacher(folder) -> Teacher:
    return Teacher.load(folder / "teacher")


@pytest.fixture(scope="module")
def run(folder) -> Distiller:
    settings = {k: v for k, v in SMALL.items() if k != "max_length"}
    return zskd.distill(folder / "teacher", folder / "run", corpus=folder / "plain.txt", **settings)


def labelled(n: int = 150, seed: int = 77) -> Examples:
    "New texts with the tags of the rule."
    texts, task = with_entities(n, seed), Task("rule", TAGS, ("tokens",), kind="tags")
    tags = [np.array([[TAGS.index(tag) for tag in rule_tags(text)]]) for text in texts]
    return Examples(texts, stacked(tags), task)


def test_a_teacher_reads_the_first_piece_of_each_word(folder, teacher):
    texts = [*with_entities(60, 5), "", "unbelievable \u200b tokenization , isn't it ?"]
    assert (teacher.kind, teacher.n_texts, teacher.labels) == ("tags", 1, TAGS)
    together, alone = teacher.logits(texts), stacked([teacher.logits([text]) for text in texts])
    np.testing.assert_allclose(together, fit_width(alone, together.shape[1]), atol=1e-4)
    model = AutoModelForTokenClassification.from_pretrained(folder / "teacher").eval()
    reader = AutoTokenizer.from_pretrained(folder / "teacher")
    for text, found in zip(texts, together, strict=True):
        read = reader(text.split(), is_split_into_words=True, return_tensors="pt")
        ids = read.word_ids()
        firsts = {word: place for place, word in reversed(list(enumerate(ids))) if word is not None}
        assert np.flatnonzero(answered(found)).tolist() == sorted(firsts)
        with torch.no_grad():
            logits = model(**read).logits[0].numpy()
        for word, place in firsts.items():
            np.testing.assert_allclose(found[word], logits[place], atol=1e-4)


def test_a_teacher_learned_the_rule_and_keeps_it_in_another_order_of_tags(teacher):
    examples = labelled()
    again = teacher.for_task(Task("turned", TAGS[::-1], ("tokens",), kind="tags"))
    assert (again.predict(examples.rows) == teacher.predict(examples.rows)).all()
    with pytest.raises(UserError, match="is of the kind single_label, but teacher .* is tags"):
        teacher.for_task(TASKS["sst2"])
    scores = evaluate(teacher, teacher, examples, timed=0)["scores"]["teacher"]
    assert scores["entity_f1"] > 0.7 and scores["accuracy"] > 0.9 and set(scores["per_entity_f1"]) == {"NUM", "PLACE", "ACT"}


def test_words_that_are_cut_off_have_no_answer(folder):
    short = Teacher.load(folder / "teacher", max_length=8)
    text = "one two three four five six seven eight nine ten"
    (tags,) = short.predict([text])
    assert tags[:6] == ("O",) * 6 and tags[6:] == ("_",) * 4
    examples = Examples([text], [[0] * 10], Task("cut", TAGS, ("tokens",), kind="tags"))
    report = evaluate(short, short, examples, timed=0)
    assert report["scores"]["teacher"]["accuracy"] == 0.6 and report["agreement"] == 1.0
    assert report["cut"]["teacher"] == 1.0


def test_answers_in_a_cache_and_in_a_pool_are_the_same(teacher, tmp_path):
    texts = with_entities(40, 9)
    first = teacher.logits(texts, cache=tmp_path / "logits")
    asked = teacher.queries
    np.testing.assert_array_equal(teacher.logits(texts, cache=tmp_path / "logits"), first)
    assert teacher.queries == asked
    task = Task.for_teacher(teacher)
    assert (task.metric, task.style, task.columns) == ("entity_f1", "words", ("tokens",))
    pool = ood_pool(task, n=200, teacher=teacher, seed=1)
    pool.save(tmp_path / "pool")
    np.testing.assert_array_equal(Pool.load(tmp_path / "pool").logits, pool.logits)
    np.testing.assert_allclose(teacher.logits(pool.rows()), pool.logits, atol=1e-4)
    before = pool.made["classes_before"]  # balanced: rare tags make up more of the pool than of the candidates
    rare = [name for name in TAGS[1:] if before[name]]
    assert sum(pool.made["answers"][n] for n in rare) / 200 > sum(before[n] for n in rare) / pool.made["candidates"]


def test_a_student_keeps_most_of_its_teachers_tags(run):
    student, texts = run.distilled, with_entities(150, 21)
    assert (student.kind, student.model.config.architectures) == ("tags", ["AlbertForTokenClassification"])
    assert run.settings.loss == "kl+0.1*logit_mse" and run.best["agreement"] > run.majority + 0.03
    examples = Examples(texts, predictions(run.teacher.logits(texts), "tags"), run.task)
    report = evaluate(run.teacher, student, examples, undistilled=run.start, timed=0, **run.facts())
    scores = report["scores"]
    assert scores["teacher"]["entity_f1"] == scores["teacher"]["accuracy"] == 1.0
    assert scores["student"]["entity_f1"] > max(0.55, 4 * report["baselines"]["undistilled"]["entity_f1"])
    assert report["baselines"]["majority"]["entity_f1"] == 0 and report["kl"] > 0
    page, text = report.to_html(), report.table()
    assert "F1 of each tag" in page and "Confusion" in page and "F1 of entities" in text and "of the words of 150 inputs" in text


def test_a_saved_student_is_an_ordinary_model(run):
    again = Student.load(run.out / "student")
    assert again.predict([TEXT]).tolist() == run.distilled.predict([TEXT]).tolist() and len(again.predict([TEXT])[0]) == len(TEXT.split())
    said = pipeline("token-classification", str(run.out / "student"), aggregation_strategy="first", ignore_labels=[])(TEXT)
    assert any(part["entity_group"] == "NUM" and "12" in part["word"] for part in said)
    card = (run.out / "student" / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card and 'pipeline("token-classification"' in card and "of the words" in card


class Dies(Callback):
    "Ends a run without a checkpoint of its last steps."

    def on_step(self, run, step, loss):
        if step == 13:
            raise SystemError("killed")


def test_killed_and_resumed_is_the_same_student(run, tmp_path):
    def made(out: Path, callbacks: tuple = (), **more) -> Distiller:
        settings = {"steps": 20, "batch_size": 32, "evaluate_every": 5, "callbacks": callbacks}
        return Distiller(run.teacher, run.start, run.pool, out, **settings, **more)

    whole = made(tmp_path / "whole").fit()
    with pytest.raises(SystemError):
        made(tmp_path / "killed", (Dies(),)).fit()
    again = made(tmp_path / "killed", resume=True)
    student = again.fit()
    assert [e["step"] for e in again.history()] == [5, 10, 15, 20]
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, student.model.state_dict()[name]), name
    shutil.rmtree(tmp_path / "killed" / "student")
    assert (made(tmp_path / "killed", resume=True).fit().predict([TEXT]) == student.predict([TEXT])).all()


def test_a_callback_may_add_texts(run, tmp_path):
    class Adds(Callback):
        def batch(self, run, batch):
            return batch.take(np.arange(16)).join([TEXT] * 8)

    student = Distiller(run.teacher, run.start, run.pool, tmp_path / "run", steps=3, batch_size=32, callbacks=[Adds()]).fit()
    assert student.kind == "tags"


def test_the_commands(run, folder, tmp_path, capsys):
    examples = labelled(40)
    lines = tmp_path / "dev.conll"
    lines.write_text("\n".join("".join(f"{w}\t{t}\n" for w, t in zip(r[0].split(), rule_tags(r[0]), strict=True)) for r in examples.rows))
    student, where = str(run.out / "student"), str(folder / "teacher")
    (tmp_path / "texts.txt").write_text(f"{TEXT}\nno numbers here\n")
    for data in (tmp_path / "texts.txt", lines):
        out = tmp_path / "answers.jsonl"
        assert zskd_command(["predict", student, "--data", str(data), "--out", str(out)]) in (0, None)
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert all(len(line["tokens"]) == len(line["tags"]) for line in found)
    assert len(found) == 40
    again = run.task.load(data=out)  # answers can be read as labels
    assert (again.labels == fit_width(predictions(run.distilled.logits(examples.rows), "tags"), again.labels.shape[1])).all()
    assert zskd_command(["predict", student, "--data", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "a.tsv")]) in (0, None)
    first = (tmp_path / "a.tsv").read_text().splitlines()[1].split("\t")
    assert first[1] == TEXT and first[0].split() == list(run.distilled.predict([TEXT])[0])
    command = ["evaluate", "--teacher", where, "--student", student, "--data", str(lines), "--out", str(tmp_path / "report")]
    assert zskd_command(command) in (0, None)
    assert "F1 of entities" in capsys.readouterr().out and read_json(tmp_path / "report" / "report.json")["kind"] == "tags"
    size = ["--rows", "200", "--params", "150000", "--vocab-size", "2000", "--steps", "4", "--batch-size", "32"]
    assert zskd_command(["distill", "--teacher", where, "--out", str(tmp_path / "run"), *size, "--data", str(lines)]) in (0, None)
    said = capsys.readouterr().out
    assert "of the words of" in said and "F1 of entities" in said


def test_tags_without_entities_are_scored_by_words(tmp_path):
    model = AutoModelForTokenClassification.from_pretrained(
        save(embedded(1), tmp_path / "encoder"), num_labels=3, id2label={0: "NOUN", 1: "VERB", 2: "X"}, ignore_mismatched_sizes=True
    )
    teacher = Teacher.load(save(model, tmp_path / "pos"))
    task = Task.for_teacher(teacher)
    report = evaluate(teacher, teacher, Examples(["a dog runs"], [[2, 0, 1]], task), timed=0)
    assert task.metric == "accuracy" and "entity_f1" not in report["scores"]["teacher"] and "F1 of entities" not in report.table()
    with pytest.raises(UserError, match="metric 'entity_f1' is unknown; use one of accuracy"):
        Task.for_teacher(teacher, metric="entity_f1")


def test_a_student_starts_from_a_compact_encoder(teacher):
    student = Student.create(teacher, init="compact-small")
    assert student.kind == "tags" and np.isfinite(student.logits([TEXT])).all()
    assert (predictions(student.logits([TEXT, "a"]), "tags")[1, 1:] == NO_TAG).all()


def refused(action, *parts: str) -> None:
    "One clear line."
    with pytest.raises(UserError) as e:
        action()
    said = str(e.value)
    assert "\n" not in said and all(part in said for part in parts), said


def test_what_needs_one_answer_for_each_text_refuses(run, teacher, tmp_path):
    student, word = run.distilled, "gives every word a tag"
    refused(lambda: export_onnx(student, tmp_path / "onnx"), word, "an export")
    refused(lambda: Cascade(student, teacher, texts=[TEXT]), word, "a cascade")
    refused(lambda: audit(teacher), "is tags")
    refused(lambda: Answers.ask(teacher, student, [TEXT]), word, "a dashboard")
    refused(lambda: Teacher.mean_of([teacher, teacher]), word)
    refused(lambda: teacher.smoothed(), "is tags")
    refused(lambda: Teacher.from_callable(len, TAGS, kind="tags"), "one answer for each text")
    refused(lambda: fine_tune(run.task, "x", tmp_path / "t"), word)
    refused(lambda: teacher.logits([("a", "b")]), "reads 1 text(s) per input")
    refused(lambda: student.logits([("a", "b")]), "single texts")
    refused(lambda: Task("pairs", TAGS, ("a", "b"), relation="entailment", kind="tags"), "not for pairs")


def test_students_without_attention_are_refused(teacher, tmp_path):
    asked, only = teacher.queries, "only attention tags words"
    for family in ("convolution", "static"):
        refused(lambda family=family: Student.create(teacher, family=family), only)
        refused(lambda family=family: zskd.distill(teacher, tmp_path / "run", family=family), only)
    refused(lambda: Student.create(teacher, shape=CnnShape(2000, 16, (1, 2), 16, 16)), only)
    refused(lambda: Student.create(teacher, n_texts=2), "single texts")
    assert teacher.queries == asked and not (tmp_path / "run").exists()


def test_methods_and_adversaries_refuse(run, tmp_path):
    teacher, asked = run.teacher, run.teacher.queries
    for name in sorted(METHODS):
        refused(lambda name=name: zskd.distill(teacher, tmp_path / "run", methods=name), "is tags; leave it out")
    refused(lambda: zskd.distill(teacher, tmp_path / "run", adversary=make_adversary("search")), "an adversary needs")
    refused(lambda: zskd.distill(teacher, tmp_path / "run", max_queries=500), "max_queries needs")
    arguments = (teacher, run.start, run.pool, tmp_path / "run")
    refused(lambda: Distiller(*arguments, adversary=make_adversary("search")), "is tags; leave it out")
    refused(lambda: Distiller(*arguments, callbacks=[HiddenStates(0.5)]), "is tags; leave it out")
    refused(lambda: Distiller(*arguments, callbacks=make_methods("talking")), "is tags; leave it out")
    refused(lambda: Distiller(*arguments, max_queries=10), "max_queries needs")
    assert teacher.queries == asked and not (tmp_path / "run").exists()


def test_a_student_of_another_kind_is_refused(run, tmp_path):
    other = Teacher.load(stars(tmp_path / "stars"))
    refused(lambda: Distiller(other, run.start, run.pool, tmp_path / "run"), "was created for a tags teacher")


def test_the_commands_that_refuse(run, tmp_path, capsys):
    student, where = str(run.out / "student"), str(run.out)
    for words in (
        ["export", student, "--out", str(tmp_path / "onnx")],
        ["cascade", where],
        ["dashboard", where, "--pages", str(tmp_path / "pages")],
        ["audit", str(run.out.parent / "teacher")],
    ):
        capsys.readouterr()
        assert zskd_command(words) not in (0, None)
        said = " ".join("".join(capsys.readouterr()).split())
        assert "needs one answer for each text" in said or "give a text one class" in said, (words, said)


def test_tags_in_files_are_checked(run, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"tokens": ["a", "New York"], "tags": ["O", "B-PLACE"]}\n')
    examples = run.task.load(data=file)
    assert examples.rows == [("a New_York",)] and examples.answer(0) == "O B-PLACE"
    for line, said in (
        ('{"tokens": ["a"], "tags": ["B-GOD"]}', "has the tag 'B-GOD'"),
        ('{"tokens": ["a"], "tags": [3]}', "write names in place of numbers"),
        ('{"tokens": ["a"], "tags": ["O", "O"]}', "1 words and 2 tags"),
        ('{"words": ["a"], "tags": ["O"]}', "has no text column 'tokens'"),
    ):
        file.write_text(f"{line}\n")
        refused(lambda: run.task.load(data=file), said)
    (tmp_path / "dev.tsv").write_text("Rome\tB-PLACE\n\nit\tO\n")
    assert len(run.task.load(data=tmp_path)) == 2


def test_pieces_of_bytes_begin_with_a_space():
    "As in the scripts of transformers, which load such a tokenizer with `add_prefix_space`."
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(with_entities(200, 1), 600, show_progress=False)
    reader = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(made.to_str()))
    found = encode_words(reader, [TEXT])
    assert found.ids.tolist() == reader(f" {TEXT}")["input_ids"]
    assert all(piece.startswith("Ġ") for piece in reader.convert_ids_to_tokens(found.ids[found.firsts[0]]))
