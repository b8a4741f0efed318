"""What the processes of the tests share: the imported packages, and the answers of teachers."""

import numpy as np
import pytest
import torch
from models import make_teacher
from shared_answers import MANY, Answers

from zskd import teachers
from zskd.teachers import Teacher
from zskd.tokens import Padding, encode_rows

TEXTS = [f"a film about {i} years" for i in range(MANY)]


def test_a_fork_has_the_packages_and_does_not_collect_them(run):
    code = "import gc, sys; print('zskd.export' in sys.modules, 'plotly.graph_objects' in sys.modules, gc.get_freeze_count() > 100_000)"
    assert run("-c", code) == (0, "True True True\n", "")


@pytest.fixture
def shared(tmp_path):
    "A teacher, its answers by way of a file, the numbers of rows that it was really asked about, and progress."
    teacher, asked, progress = Teacher.load(make_teacher(tmp_path / "teacher"), precision="fp32"), [], []

    def ask(model, pad, encoded, rows, answered):
        asked.append(len(rows))
        return teachers._forward(model, pad, encoded, rows, answered)

    answers = Answers(tmp_path / "answers.sqlite", ask)
    return teacher, lambda rows, texts=TEXTS: answers(*given(teacher, texts), np.asarray(rows), progress.append), asked, progress


def given(teacher, texts):
    return teacher.model, Padding(), encode_rows(teacher.tokenizer, texts)


def test_known_answers_are_not_computed_again(shared):
    teacher, answers, asked, progress = shared
    true = teachers._forward(*given(teacher, TEXTS), np.arange(MANY))
    for _ in range(2):
        np.testing.assert_allclose(answers(range(MANY)), true, atol=1e-5)
    assert asked == [MANY] and sum(progress) == 2 * MANY
    more = [*TEXTS[::-1], "another text"]
    np.testing.assert_allclose(answers(range(MANY + 1), more)[:-1], true[::-1], atol=1e-5)
    assert asked == [MANY, 1]
    answers(range(9))  # a few are always computed
    assert asked == [MANY, 1, 9]


@pytest.mark.parametrize("change", ["a weight", "the order of the classes", "a hook"])
def test_a_changed_model_is_asked_again(shared, change):
    teacher, answers, asked, _ = shared
    head, before = teacher.model.classifier, answers(range(MANY))
    with torch.no_grad():
        if change == "a weight":
            head.bias[0] += 1
        elif change == "the order of the classes":
            head.weight.copy_(head.weight.flip(0))
            head.bias.copy_(head.bias.flip(0))
        else:
            head.register_forward_hook(lambda module, args, output: output + 1)
    after = answers(range(MANY))
    assert asked == [MANY, MANY]
    wanted = {"a weight": before + [1, 0], "the order of the classes": before[:, ::-1], "a hook": before + 1}[change]
    np.testing.assert_allclose(after, wanted, atol=1e-5)
