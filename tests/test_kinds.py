"Teachers of several labels and of scores, from the pool to the report: what a user sees of them."

import json
from pathlib import Path

import numpy as np
import pytest
from made_teachers import stars, three_labels
from transformers import pipeline

import zskd
from zskd.cli import main as zskd_command
from zskd.core import read_json
from zskd.errors import UserError
from zskd.evaluation import evaluate
from zskd.export import export_onnx
from zskd.kinds import predictions
from zskd.methods.index import METHODS, make_adversary, make_methods
from zskd.students import Student
from zskd.tasks import TASKS, Examples, Task
from zskd.teachers import Teacher
from zskd.training import Distiller

TEXTS = ["a moving and beautiful film", "a dull , lifeless film", "the film was shot in 2004"]
SMALL = {"n": 600, "n_params": 150_000, "vocab_size": 2000, "steps": 60, "batch_size": 32}


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Distiller:
    folder = tmp_path_factory.mktemp("labels")
    return zskd.distill(three_labels(folder / "teacher"), folder / "run", **SMALL)


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> Distiller:
    folder = tmp_path_factory.mktemp("scores")
    return zskd.distill(stars(folder / "teacher"), folder / "run", **SMALL)


def truth(teacher: Teacher) -> Examples:
    "The embedded evaluation sentences, with the teacher's answers as labels."
    rows = TASKS["sst2"].validation("demo").rows[:120]
    task = Task.for_teacher(teacher, columns=("sentence",), name="answers")
    return Examples(rows, predictions(teacher.logits(rows), teacher.kind), task)


def test_a_student_of_several_labels(labels, tmp_path):
    student, before = labels.distilled, labels.start
    assert (student.kind, student.model.config.problem_type) == ("multi_label", "multi_label_classification")
    assert labels.settings.loss == "kl+0.1*logit_mse" and len(student.thresholds) == 3 and set(labels.state.answers) == set(student.labels)
    assert labels.best["agreement"] > labels.majority
    rows = labels.texts(labels.held)
    theirs, mine, first = labels.teacher.logits(rows), student.logits(rows), before.logits(rows)
    assert np.corrcoef(theirs.ravel(), mine.ravel())[0, 1] > max(0.5, np.corrcoef(theirs.ravel(), first.ravel())[0, 1])
    again = Student.load(labels.out / "student")
    assert again.thresholds == student.thresholds and again.predict(TEXTS).tolist() == student.predict(TEXTS).tolist()
    card = (labels.out / "student" / "README.md").read_text()
    assert "top_k=None" in card and "| praise |" in card and "with several labels" in card
    said = pipeline("text-classification", str(labels.out / "student"), top_k=None)(TEXTS[:1])[0]
    np.testing.assert_allclose({a["label"]: a["score"] for a in said}["praise"], student.predict_proba(TEXTS[:1])[0, 0], atol=1e-4)
    exported = export_onnx(student, tmp_path / "onnx")["fp32"]
    np.testing.assert_allclose(exported.logits(TEXTS), student.logits(TEXTS), atol=1e-3)
    assert (exported.kind, exported.thresholds) == (student.kind, student.thresholds)


def test_a_report_on_several_labels(labels):
    examples = truth(labels.teacher)
    report = evaluate(labels.teacher, labels.distilled, examples, undistilled=labels.start, timed=0, **labels.facts())
    teacher = report["scores"]["teacher"]
    assert teacher["micro_f1"] == teacher["accuracy"] == teacher["map"] == 1.0 and report["kind"] == "multi_label"
    assert 0 < report["scores"]["student"]["map"] < 1 and set(report["per_class_f1"]["student"]) == set(examples.task.labels)
    page, text = report.to_html(), report.table()
    assert "F1 of each label" in page and "<h2>Confusion</h2>" not in page and "mean average precision" in text


def test_a_student_of_scores(scores, tmp_path):
    student = scores.distilled
    assert (student.kind, scores.settings.loss) == ("score", "mse+0.5*ranknet") and scores.majority == 0.5
    assert scores.best["agreement"] > 0.6  # a student that knows nothing orders half of the pairs like its teacher
    mean, spread = scores.scale
    known = scores.teacher.logits(scores.texts(scores.train))
    assert abs(mean - known.mean()) < 1e-4 and abs(spread - known.std()) < 1e-4
    ours = student.predict(scores.texts(scores.held))
    assert abs(ours.mean() - mean) < spread and 0.05 * spread < ours.std() < 2 * spread  # in the teacher's own units
    said = pipeline("text-classification", str(scores.out / "student"))(TEXTS[:1])
    np.testing.assert_allclose(said[0]["score"], student.predict(TEXTS[:1])[0], atol=1e-4)
    card = (scores.out / "student" / "README.md").read_text()
    assert "its `stars`" in card and "order of" in card
    exported = export_onnx(student, tmp_path / "onnx")["fp32"]
    np.testing.assert_allclose(exported.predict(TEXTS), student.predict(TEXTS), atol=1e-3)


def test_a_report_on_scores(scores):
    report = evaluate(scores.teacher, scores.distilled, truth(scores.teacher), undistilled=scores.start, timed=0, **scores.facts())
    assert report["scores"]["teacher"]["spearman"] > 0.999 and report["ece"]["student"] is None and report["pct_of_teacher"] is not None
    page = report.to_html()
    assert "mean score" in page and "Spearman" in page and "<h2>Calibration</h2>" not in page and "order alike" in report.table()
    assert report["baselines"]["majority"]["pearson"] == 0.0


def test_a_loss_of_another_kind_is_refused_before_anything_is_asked(labels, scores, tmp_path):
    for run, loss, said in ((labels, "dkd", "several labels at once"), (scores, "kl", "scores, not classes")):
        asked = run.teacher.queries
        with pytest.raises(UserError, match=said):
            zskd.distill(run.teacher, tmp_path / "run", loss=loss, **SMALL)
        assert run.teacher.queries == asked and not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_work_with_labels_or_refuse_in_one_line(labels, method, tmp_path):
    (callback,) = make_methods(method)
    arguments = (labels.teacher, labels.start, labels.pool, tmp_path / "run")
    if "multi_label" not in callback.kinds:
        with pytest.raises(UserError, match="is for single_label teachers, and .* is multi_label; leave it out"):
            Distiller(*arguments, callbacks=[callback], steps=2, batch_size=32)
    elif method != "talking":  # needs a student with attention
        assert Distiller(*arguments, callbacks=[callback], steps=2, batch_size=32).fit().kind == "multi_label"


@pytest.mark.parametrize("kind", ["multi_label", "score"])
@pytest.mark.parametrize("adversary", ["gradient", "search"])
def test_adversaries_search_where_labels_and_scores_differ(labels, scores, adversary, kind, tmp_path):
    run = labels if kind == "multi_label" else scores
    arguments = (run.teacher, run.start, run.pool, tmp_path / "run")
    made = Distiller(*arguments, adversary=make_adversary(adversary), steps=8, batch_size=32)
    made.fit()
    records = [json.loads(line) for line in (tmp_path / "run" / "generated.jsonl").read_text().splitlines()]
    assert records and all(np.isfinite(r["divergence"]) and len(r["teacher"]) == len(run.start.labels) for r in records)


def test_a_finished_run_keeps_its_thresholds(labels):
    settings = {"task": labels.task, "resume": True, "steps": SMALL["steps"], "batch_size": SMALL["batch_size"]}
    again = Distiller(labels.teacher, labels.start, labels.pool, labels.out, **settings)
    assert again.fit().thresholds == labels.distilled.thresholds


def test_the_commands(labels, scores, tmp_path, capsys):
    for run, heads in ((labels, ["labels", "p(praise)", "p(blame)", "p(mild)", "text"]), (scores, ["score", "text"])):
        (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
        options = ["--data", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "a.csv")]
        assert zskd_command(["predict", str(run.out / "student"), *options]) in (0, None)
        assert (tmp_path / "a.csv").read_text().splitlines()[0].split(",") == heads
        said = zskd_command(["audit", str(run.out.parent / "teacher")])
        assert said not in (0, None) and "an audit is for teachers that give a text one class" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match="task sst2 is of the kind single_label"):
        labels.teacher.for_task(TASKS["sst2"])
    assert read_json(Path(scores.out) / "student" / "zskd.json")["notes"]["run"]["kind"] == "score"


@pytest.mark.parametrize(("make", "said"), [(three_labels, "agrees with the teacher on"), (stars, "orders like the teacher")])
def test_distill_and_label_as_commands(make, said, tmp_path, capsys):
    teacher = str(make(tmp_path / "teacher"))
    small = ["--rows", "200", "--steps", "4", "--batch-size", "32", "--params", "150000", "--vocab-size", "2000"]
    assert zskd_command(["distill", "--teacher", teacher, "--out", str(tmp_path / "run"), *small]) in (0, None)
    assert said in capsys.readouterr().out
    assert zskd_command(["label", "--teacher", teacher, "--pool", str(tmp_path / "run" / "pool"), "--logits", str(tmp_path / "cache")]) in (
        0,
        None,
    )
    assert "200 rows" in capsys.readouterr().out
