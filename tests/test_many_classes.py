"""A teacher of 150 classes: whatever names them stays short enough to be read."""

import hashlib

import numpy as np
import pytest

from zskd.cards import model_card
from zskd.commands import label_pool
from zskd.errors import UserError
from zskd.evaluation import evaluate
from zskd.pools import ood_pool
from zskd.students import Student
from zskd.tasks import TASKS, Examples, Task
from zskd.teachers import Teacher

NAMES = tuple(f"intent_{i}" for i in range(150))
WIDTH = 260  # characters of the longest line; all names together have some 1,600


def answer(texts):
    "One of the first 140 classes, by a digest of the text."
    p = np.full((len(texts), len(NAMES)), 0.001)
    p[np.arange(len(texts)), [int(hashlib.sha256(t.encode()).hexdigest(), 16) % 140 for t in texts]] = 0.851
    return p


@pytest.fixture(scope="module")
def teacher():
    return Teacher.from_callable(answer, NAMES, name="banker")


@pytest.fixture(scope="module")
def task(teacher):
    return Task.for_teacher(teacher, name="intents")


@pytest.fixture(scope="module")
def student(teacher):
    return Student.create(
        teacher, n_params=100_000, corpus=["a river of the north and a song"] * 50, init="random", vocab_size=300, n_texts=1
    )


def readable(text, names=12):
    assert max(map(len, str(text).split("\n"))) < WIDTH
    assert sum(str(text).count(f"{name}{end}") for name in NAMES for end in " ,'`") <= 3 * names
    return text


def test_reprs(teacher, student):
    assert "(150 in all)" in readable(repr(teacher)) and "(150 in all)" in readable(repr(student))
    assert "(150 in all)" in student._repr_html_() and "intent_100" not in student._repr_html_()


def test_a_pool_and_its_answers(teacher, task, tmp_path, capsys):
    pool = ood_pool(task, "sample", 400, teacher=teacher, cache=tmp_path)
    table = readable(repr(pool.stats()))
    assert "of 150" in table and "classes without a row" in table
    counts = label_pool(teacher, pool, tmp_path)
    said = readable(capsys.readouterr().out)
    assert len(counts) == 150 and sum(counts.values()) == 400 and "answers: " in said and "(150 in all)" in said


def test_a_report_and_a_card(teacher, student, task, tmp_path):
    rows = [(f"text {i}",) for i in range(300)]
    truth = answer([t for (t,) in rows]).argmax(1)
    report = evaluate(teacher, student, Examples(rows, truth, task))
    readable(report.table())
    report.save(tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<h3>intent_") == 12 and page.count('class="count"') == 2 * 12 * 12 and "The 12 of 150 classes" in page
    card = str(model_card(student, report.data))
    assert "or one of 140 other classes" in card and card.count("intent_") == 10


def test_errors(teacher):
    with pytest.raises(UserError) as e:
        teacher.for_task(TASKS["sst2"])
    readable(e.value)
    with pytest.raises(UserError) as e:
        Teacher.from_callable(lambda texts: ["no such"] * len(texts), NAMES, returns="labels").logits(["a"])
    readable(e.value)
    with pytest.raises(UserError) as e:
        Teacher.from_callable(lambda texts: np.ones((len(texts), 3)) / 3, NAMES).logits(["a"])
    readable(e.value)
