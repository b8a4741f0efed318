"Evaluate: properties on random logits, and a report from a large and odd input."

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from zskd.errors import RunError, UserError
from zskd.evaluation import Report, evaluate
from zskd.metrics import agreement, ece, mean_kl, reliability
from zskd.tasks import TASKS, Examples, Task


class Fixed:
    "Returns given logits."

    def __init__(self, logits, labels, name="fixed", n_params=None):
        self.answer, self.labels, self.name, self.n_params = np.asarray(logits), labels, name, n_params

    def logits(self, rows):
        return self.answer[: len(rows)]


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_kl_and_agreement_match_torch(classes):
    rng = np.random.default_rng(classes)
    t, s = rng.normal(size=(200, classes)) * 5, rng.normal(size=(200, classes)) * 5
    expected = kl_div(log_softmax(torch.tensor(s), 1), log_softmax(torch.tensor(t), 1), log_target=True, reduction="batchmean")
    assert mean_kl(t, s) == pytest.approx(expected.item())
    assert mean_kl(t, s) >= 0
    assert agreement(t, s) == agreement(s, t) == (t.argmax(1) == s.argmax(1)).mean()


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_matches_a_loop(bins):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 3)) * 3, rng.integers(0, 3, 500)
    p = torch.softmax(torch.tensor(logits), 1).numpy()
    total = 0.0
    for b in range(bins):
        here = [i for i in range(500) if b / bins < p[i].max() <= (b + 1) / bins]
        if here:
            total += abs(sum(p[i].argmax() == labels[i] for i in here) - sum(p[i].max() for i in here)) / 500
    assert ece(logits, labels, bins) == pytest.approx(total)
    assert sum(b["n"] for b in reliability(logits, labels, bins)) == 500


def test_ece_of_a_calibrated_model_is_small():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 100_000)
    labels = (rng.uniform(size=len(p)) > p).astype(int)
    assert ece(np.log(np.stack([p, 1 - p], 1)), labels) < 0.01


def test_many_classes_and_hostile_texts(tmp_path):
    names = tuple(f"<class {i}> & more" for i in range(20))
    task = Task("twenty <b>", names, ("text",))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 300)
    rows = [(f"</td><img src=x onerror=alert({i})> \u202e \x00 {'long' * 400}",) for i in range(300)]
    teacher = Fixed(rng.normal(size=(300, 20)) + 3 * np.eye(20)[labels], names, "</title><script>", 10**9)
    report = evaluate(teacher, Fixed(rng.normal(size=(300, 20)), names), Examples(rows, labels, task), timed=1)
    page = report.save(tmp_path / "new" / "run").read_text(encoding="utf-8")
    assert "<img" not in page and "<script" not in page and "<class" not in page and "<b>" not in page.split("</h1>")[0]
    assert Report.load(tmp_path / "new" / "run").data == report.data
    assert report["compression"] is None and len(report["per_class_f1"]["student"]) == 20
    json.dumps(report.data, allow_nan=False)


def test_one_row_one_class_present():
    report = evaluate(
        Fixed([[0.0, 1.0]], ("negative", "positive")), Fixed([[1.0, 0.0]], ("negative", "positive")), Examples(["a"], [1], TASKS["sst2"])
    )
    assert (report["pct_of_teacher"], report["agreement"], report["n"]) == (0.0, 0.0, 1)
    assert report["notes"][1] == "The evaluation set has 1 row; whether it is complete is not known."


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_error_names_the_model_with_logits_that_are_not_finite(value):
    good, bad = (Fixed(z, ("negative", "positive"), n) for z, n in (([[0.0, 1.0]], "good"), ([[0.0, value]], "bad")))
    examples = Examples(["a"], [1], TASKS["sst2"])
    with pytest.raises(UserError, match="teacher bad: returned NaN or infinity"):
        evaluate(bad, good, examples)
    with pytest.raises(UserError, match="student bad: returned NaN or infinity"):
        evaluate(good, bad, examples)


def test_a_page_that_cannot_be_written(tmp_path):
    (tmp_path / "report.html").mkdir()
    model = Fixed([[0.0, 1.0]], ("negative", "positive"))
    with pytest.raises(RunError, match=r"report\.html: cannot be written"):
        evaluate(model, model, Examples(["a"], [1], TASKS["sst2"]), timed=0).save(tmp_path)
    assert Report.load(tmp_path)["n"] == 1  # the numbers are safe
