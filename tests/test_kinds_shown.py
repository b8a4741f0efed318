"The dashboards of teachers of several labels and of a score: what they show, from the bars of one text to the pages of a run."

import csv
import json

import numpy as np
import pytest
from made_teachers import stars, three_labels

pytest.importorskip("anywidget")

from zskd.adversaries import Generated
from zskd.dashboards import Comparison, Explorer
from zskd.errors import UserError
from zskd.kinds import predictions, probabilities
from zskd.loss_explorer import LossExplorer
from zskd.run_views import SearchViewer
from zskd.serve import RunDashboard, RunData, compared_sets, in_order_of
from zskd.side_by_side import Answers
from zskd.students import Student
from zskd.tasks import Examples, Task
from zskd.teachers import Teacher

TEXTS = ["a moving film , never dull", "the plot is a mess", "a film", "dull and too long", "one of the best", "it is not bad at all"] * 8
ROWS = [(f"{text} {k}",) for k, text in enumerate(TEXTS)]
KINDS = {"multi_label": three_labels, "score": stars}


@pytest.fixture(scope="module", params=KINDS)
def models(request, tmp_path_factory):
    "A teacher of a kind and an untrained student of it."
    teacher = Teacher.load(KINDS[request.param](tmp_path_factory.mktemp("teacher")))
    student = Student.create(teacher, family="convolution", n_params=300_000, corpus=TEXTS, sensitivity=False)
    if request.param == "multi_label":
        student.notes["thresholds"] = [0.4, 0.5, 0.6]
    return teacher, student


@pytest.fixture(scope="module")
def answers(models):
    teacher, student = models
    right = predictions(teacher.logits(ROWS), teacher.kind)
    return Answers.ask(teacher, student, ROWS, right.astype(bool) if teacher.kind == "multi_label" else right.round())


@pytest.fixture(scope="module")
def run(models, tmp_path_factory):
    "The folder of a run, as far as dashboards need it."
    (teacher, student), folder = models, tmp_path_factory.mktemp("run")
    student.notes |= {"best_agreement": 0.75, "best_kl": 0.5}
    student.save(folder / "student")
    made = Generated(ROWS[:4], ROWS[4:8], teacher.logits(ROWS[:4]), student.logits(ROWS[:4]), student.labels, kind=student.kind)
    (folder / "generated.jsonl").write_text("".join(json.dumps({"step": 5, **r}) + "\n" for r in made.records()))
    (folder / "config.json").write_text(json.dumps({"teacher": {"fingerprint": "other"}, "student": {"labels": list(student.labels)}}))
    (folder / "log.jsonl").write_text(json.dumps({"event": "start", "step": 0}) + "\n")
    return folder


def test_one_text(models):
    teacher, student = models
    view = Explorer(teacher, student, ROWS, ROWS[0])
    t, s = view.ask(ROWS[0])
    fig = view.figure.fig
    if teacher.kind == "score":
        assert [trace.x[0] for trace in fig.data[1:]] == [pytest.approx(float(t[0])), pytest.approx(float(s[0]))]
        assert view.scale == (min(t[0], s[0]), max(t[0], s[0])) and "teacher" in view.summary.value
    else:
        assert np.allclose([trace.x for trace in fig.data[:2]], probabilities(np.array([t, s], float), "multi_label"))
        assert list(fig.data[2].x) == [0.5, 0.5, 0.5, 0.4, 0.5, 0.6]
        assert f"teacher {teacher.answer(t)}; student {student.answer(s)}" in view.summary.value
    assert view.words.value.count("<p>") == 2 and "<sup>" in view.words.value
    view.pin(ROWS[1])
    assert len(view.pinned.children) == 2


def test_many_texts(answers, tmp_path):
    asked = []
    view = Comparison({"reviews": answers}, folder=tmp_path, actions={"open": asked.append})
    for name, key in view.orders.items():
        view.sort.value = name
        assert np.all(np.diff(key(answers)[view.selection]) <= 0)
    for name in view.figures:
        view.figure_menu.value = name
        assert view.second_figure.fig.data, name
    view.disagreements.value = True
    assert len(view.selection) == (~answers.same).sum()
    assert {line[""] for line in view.list.lines} <= {"≠"}
    view.show_all()
    for by in view.slicer.options[:-1]:
        view.slicer.value = by
        assert view.slice_list.lines
    view.list.receive({"chosen": ["open", 0]})
    assert asked == [answers.rows[view.selection[0]]]
    lines = list(csv.DictReader(view.save_list(tmp_path / "list.csv").open(encoding="utf-8")))
    assert len(lines) == len(ROWS) and "teacher" in lines[0]
    page = view.to_html(tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert page.count('class="plotly-graph-div"') == 1 + len(view.figures)


def test_filters(answers):
    view = Comparison({"reviews": answers})
    if answers.kind == "score":
        view.click([float(answers.teacher_logits[3, 0])], [float(answers.student_logits[3, 0])])
        assert 3 in view.selection and view.by_case.layout.display == "none"
        return
    t, s = answers.predicted
    view.click([1], [0])  # praise, by the teacher only
    assert sorted(view.selection) == np.flatnonzero(t[:, 0] & ~s[:, 0]).tolist()
    view.show_all()
    view.by_student.value = dict(view.by_student.options)["(none)"]
    assert sorted(view.selection) == np.flatnonzero(~s.any(1)).tolist()
    view.show_all()
    view.by_case.value = "teacher right, student wrong"  # the teacher is right everywhere here
    assert sorted(view.selection) == np.flatnonzero((t != s).any(1)).tolist()


def test_a_run(models, run, tmp_path):
    teacher, student = models
    labels = predictions(teacher.logits(ROWS), teacher.kind)
    examples = Examples(ROWS, labels, Task("mine", teacher.labels, ("text",), kind=teacher.kind))
    board = RunDashboard(RunData(run, teacher, examples=examples))
    score = teacher.kind == "score"
    assert ("Loss explorer" in board.parts) != score
    assert ("pairs of held-out texts" if score else "the teacher's labels to 75.0%") in board.children[0].value
    made = board.parts["Comparison"].sets["written by the adversary"]
    assert np.allclose(made.shares[0], np.round(board.parts["Comparison"].sets["mine, validation"].shares[0][:4], 4), atol=1e-4)
    assert made.kind == student.kind and made.thresholds == student.thresholds
    viewer = board.parts["Generated texts"]
    assert viewer.kind == SearchViewer.of_run(run).kind == teacher.kind and viewer.after.fig.data
    pages = board.to_html(tmp_path / "pages")
    assert len(pages) == (4 if score else 5) and all(page.stat().st_size for page in pages)
    if score:
        assert board.parts["Explorer"].scale[0] < board.parts["Explorer"].scale[1]
        with pytest.raises(UserError, match="a score has none"):
            LossExplorer(teacher, student, ROWS[:3])
    else:
        explorer = board.parts["Loss explorer"]
        explorer.temperature.value = 4
        assert np.allclose(explorer.answers_figure.fig.data[0].x, probabilities(explorer.batch.teacher_logits[[0]] / 4, teacher.kind)[0])


def test_students_of_another_order_or_kind(models):
    teacher, student = models
    answers = compared_sets(teacher, student, generated=None, examples=None)
    assert answers == {}
    given = Answers.ask(teacher, student, ROWS[:5])
    back = in_order_of(given.labels[::-1], given)
    assert np.allclose(back.shares[1], given.shares[1][:, ::-1]) and np.array_equal(back.same, given.same)
    other = Teacher.from_callable(lambda texts: [[0.5, 0.5]] * len(texts), labels=["a", "b"])
    with pytest.raises(UserError, match=f"is {student.kind}, but teacher"):
        Explorer(other, student)
