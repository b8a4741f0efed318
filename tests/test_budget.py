"A limit of questions: no teacher is ever asked more, whatever happens to the run."

import itertools
import json
from pathlib import Path

import pytest
import torch
from models import make_teacher

from zskd.callbacks import Callback
from zskd.core import ASSETS
from zskd.distillation import distill, scored
from zskd.errors import RunError, UserError
from zskd.folders import run_options
from zskd.ledger import ledger_of
from zskd.methods.index import METHODS, make_methods
from zskd.pools import Pool
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.training import Distiller

LABELS = ("negative", "positive")
SMALL = {"n_params": 60_000, "init": "random", "steps": 12, "batch_size": 8, "evaluate_every": 4}


class Counting:
    "A function that counts the texts that it is asked about, and can be killed at some of them."

    def __init__(self, kill: tuple[int, ...] = ()):
        self.count, self.kill = 0, list(kill)

    def __call__(self, texts: list[str]) -> list[str]:
        self.count += len(texts)
        if self.kill and self.count >= self.kill[0]:
            self.kill.pop(0)
            raise KeyboardInterrupt
        return [LABELS[len(text) % 2] for text in texts]

    def teacher(self) -> Teacher:
        return Teacher.from_callable(self, LABELS, name="parity", returns="labels")


class Killed(Callback):
    "Ends the process, as it were, after a step."

    def __init__(self, step: int):
        self.step = step

    def on_step(self, run, step, loss):
        if step == self.step:
            raise ProcessLookupError


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Student.load(folder / "student").model.state_dict()


def test_a_function_is_asked_no_more_than_allowed(tmp_path):
    counting = Counting()
    run = distill(counting.teacher(), tmp_path / "run", max_queries=120, adversary="infill", **SMALL)
    ledger = ledger_of(run.teacher)
    assert counting.count == ledger.total == sum(ledger.asked.values()) <= 120 and ledger.asked["pool"] == len(run.pool) == 60
    assert 0 < ledger.asked["training"] == run.state.queries.extra <= 60 and run.step == run.steps == 12
    asked = counting.count
    again = distill(counting.teacher(), tmp_path / "run", max_queries=120, adversary="infill", resume=True, **SMALL)
    assert (counting.count, again.best) == (asked, run.best)
    pool = Pool.load(tmp_path / "run" / "pool")  # holds the answers, for other commands
    assert pool.logits is not None and len(counting.teacher().logits(pool)) == 60 and counting.count == asked


def test_a_run_that_is_killed_in_the_training_asks_nothing_twice(tmp_path):
    counting = Counting()
    plain = {"max_queries": 120, "adversary": "infill", **SMALL}
    distill(counting.teacher(), tmp_path / "whole", **plain)
    whole, counting.count = counting.count, 0
    for step in (2, 6, 11):
        with pytest.raises(ProcessLookupError):
            distill(counting.teacher(), tmp_path / "run", callbacks=[Killed(step)], resume=True, **plain)
    run = distill(counting.teacher(), tmp_path / "run", resume=True, **plain)
    assert counting.count == whole == ledger_of(run.teacher).total
    assert all(torch.equal(a, b) for a, b in zip(weights(tmp_path / "run").values(), weights(tmp_path / "whole").values(), strict=True))


@pytest.mark.filterwarnings("ignore:.*were lost when the run was killed")
@pytest.mark.parametrize("kill", [(1,), (40,), (1, 64), (70, 75), (33, 65, 70, 80)])
def test_a_function_that_is_killed_is_asked_no_more_either(tmp_path, kill):
    counting = Counting(kill)
    for _ in range(len(kill) + 1):
        try:
            run = distill(counting.teacher(), tmp_path / "run", max_queries=120, adversary="infill", resume=True, **SMALL)
        except KeyboardInterrupt:
            continue
        except RunError as e:  # too many answers were lost
            assert "were lost when the run was killed" in str(e) and "\n" not in str(e)
            break
    ledger = json.loads((tmp_path / "run" / "queries.json").read_text())
    assert counting.count == sum(ledger["asked"].values()) <= 120 and not counting.kill
    assert kill != (1,) or len(run.pool) == 56  # four questions were lost


class Seen:
    "Counts the inputs that a model reads: different ones in a batch of texts, all in one of vectors."

    def __init__(self, teacher: Teacher):
        self.count = 0
        teacher.model.register_forward_hook(self.note, with_kwargs=True)

    def note(self, model, args, inputs, output):
        ids = inputs.get("input_ids")
        self.count += len(torch.unique(ids, dim=0)) if ids is not None else len(inputs["inputs_embeds"])


def test_an_embedded_teacher_answers_no_more_than_allowed(tmp_path):
    teacher = Teacher.load(ASSETS / "teacher", precision="fp32")
    seen = Seen(teacher)
    few = {**SMALL, "steps": 4, "evaluate_every": 2}
    run = distill(teacher, tmp_path / "run", task="sst2", max_queries=460, data=ASSETS / "eval", **few)
    ledger = ledger_of(run.teacher)
    assert ledger.asked == {"pool": 60, "training": 0, "score": 400} and seen.count <= 460 and run.distilled.report
    with pytest.raises(UserError, match="the score takes 400 questions"):
        distill(teacher, tmp_path / "small", task="sst2", max_queries=400, data=ASSETS / "eval", **few)
    again = distill(teacher, tmp_path / "run", task="sst2", max_queries=460, data=ASSETS / "eval", resume=True, **few)
    assert ledger_of(again.teacher).asked == ledger.asked and seen.count <= 460  # even the score is not asked again


@pytest.mark.parametrize("asking", [{"adversary": "search"}, {"adversary": "gradient"}, {"methods": "backward"}, {"methods": "roles"}])
def test_a_model_that_is_asked_in_training_answers_no_more_than_allowed(tmp_path, asking):
    teacher = Teacher.load(make_teacher(tmp_path / "teacher"), precision="fp32")
    seen, limit = Seen(teacher), 200
    given = {"task": "sst2", "max_queries": limit, "n_params": 20_000, **{k: v for k, v in SMALL.items() if k != "n_params"}, **asking}
    for step in (5, 5):  # after a checkpoint
        with pytest.raises(ProcessLookupError):
            distill(teacher, tmp_path / "run", callbacks=[Killed(step)], resume=True, **given)
    run = distill(teacher, tmp_path / "run", resume=True, **given)
    asked = ledger_of(run.teacher).asked
    assert asked["pool"] == 100 and 0 < asked["training"] <= 100 and run.state.queries.extra <= 100
    assert 100 < seen.count <= sum(asked.values()) <= limit and (tmp_path / "run" / "student").exists()


def test_a_smoothed_teacher_counts_its_questions(tmp_path):
    counting = Counting()
    run = distill(counting.teacher().smoothed(4), tmp_path / "run", max_queries=250, adversary="infill", **SMALL)
    asked = ledger_of(run.teacher).asked
    assert len(run.pool) == 31 and asked["pool"] == 124 and counting.count == sum(asked.values()) <= 250 and asked["training"] > 0
    assert run.facts()["queries"]["ood"] == 124


@pytest.mark.slow
def test_what_asks_in_training_says_so(tmp_path):
    teacher = Teacher.load(make_teacher(tmp_path / "teacher"), precision="fp32")
    said = itertools.product(("good", "bad", "fine", "dull"), ("day", "film", "plot"), ("the", "was", "of", "and"))
    texts = [f"it was a {a} {b} and {c} long old {b} of its {a} kind" for a, b, c in said]
    for name in METHODS:
        (method,) = make_methods(name)
        student = Student.create(teacher, preset=None, n_params=60_000, family="attention", sensitivity=False)
        run = Distiller(teacher, student, texts, tmp_path / name, callbacks=[method], steps=3, batch_size=16)
        run.fit()
        assert method.asks == (run.state.queries.extra > 0), name
        more = len(list((tmp_path / name / "logits").glob("*.safetensors"))) > 1  # than the logits
        assert method.reads_states == more, name


def test_a_limit_that_does_not_allow_a_step_is_no_student(tmp_path):
    class Asks(Callback):
        "Does not say that it asks."

        def batch(self, run, batch):
            return batch.join(["a good film"] * 4)

    counting = Counting()
    with pytest.raises(RunError, match="max_queries=0: 0 questions were asked, and 4 more would exceed this limit"):
        distill(counting.teacher(), tmp_path / "run", max_queries=60, callbacks=[Asks()], **SMALL)
    assert counting.count == 60 and not (tmp_path / "run" / "student").exists()


def test_what_contradicts_the_limit_is_refused_before_a_question(tmp_path):
    counting = Counting()
    refused = {
        "max_queries=100: 200 rows take 200 questions": {"n": 200},
        "init=teacher: asks the teacher about every piece": {"init": "teacher"},
        "hidden=1: reads the teacher's hidden states": {"hidden": 1.0},
        "HiddenStates reads the teacher's hidden states": {"methods": "hidden"},
        "the pool takes all questions": {"n": 100, "adversary": "infill"},
        "a turn of the adversary takes at least": {"n": 99, "adversary": "search"},
        "leaves 10 rows for the pool": {"max_queries": 10},
        "max_queries=0: must be 1 or more": {"max_queries": 0},
    }
    for part, given in refused.items():
        with pytest.raises(UserError, match=part) as e:
            distill(counting.teacher(), tmp_path / "run", **{"max_queries": 100, **SMALL, **given})
        assert "\n" not in str(e.value)
    nameless = Teacher.from_callable(counting, LABELS, returns="labels")
    with pytest.raises(UserError, match="a function without a name"):
        distill(nameless, tmp_path / "run", max_queries=100, **SMALL)
    assert counting.count == 0 and not (tmp_path / "run").exists()


def test_a_pool_with_answers_costs_nothing(tmp_path):
    counting = Counting()
    distill(counting.teacher(), tmp_path / "first", max_queries=100, **SMALL)
    run = distill(counting.teacher(), tmp_path / "second", pool=tmp_path / "first" / "pool", max_queries=50, adversary="infill", **SMALL)
    assert ledger_of(run.teacher).asked["pool"] == 0 and counting.count == 100 + ledger_of(run.teacher).total
    with pytest.raises(UserError, match="100 rows take 100 questions, but 50 are left"):
        other = Teacher.from_callable(counting, LABELS, name="other", returns="labels")
        distill(other, tmp_path / "third", pool=tmp_path / "first" / "pool", max_queries=50, **SMALL)


def test_the_command_shows_what_it_asks_and_what_it_costs(tmp_path, call):
    teacher = make_teacher(tmp_path / "teacher", ("negative", "positive"))
    words = [
        "distill",
        "--teacher",
        teacher,
        "--task",
        "sst2",
        "--out",
        tmp_path / "run",
        "--steps",
        4,
        "--params",
        20_000,
        "--init",
        "random",
    ]
    few = [*words, "--max-queries", 100, "--cost-per-1000", 2.5]
    code, out, err = call(*few)
    assert code == 0, err
    assert "asks the teacher at most 100 questions: 100 for the pool, 0 during training; this costs at most 0.25" in out
    assert out.index("asks the teacher at most") < out.index("teacher: Teacher(") and "expected on this machine" not in out
    assert "asked the teacher 100 questions: 100 for the pool, 0 during training; 0 of 100 are left; this cost 0.25" in out
    assert run_options(tmp_path / "run")[1]["max_queries"] == 100  # other commands can read them
    code, out, err = call(*few[:-1], 3, "--resume")
    assert code == 0 and "this cost 0.3" in out, err
    for more, part in (
        (["--oversample", 2], "--oversample 2: a limit of questions leaves no answers for candidates"),
        (["--rows", 200], "--max-queries 100: 200 rows take 200 questions"),
        (["--init", "teacher"], "--init teacher: asks the teacher about every piece"),
        (["--data", "demo"], "--max-queries 100: the score takes 400 questions"),
        (["--cost-per-1000", -1], "--cost-per-1000 -1: must be 0 or more"),
    ):
        code, out, err = call(*few, "--out", tmp_path / "other", *more)
        assert code == 2 and part in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "other").exists()
    code, out, err = call(*words[:-3], 20_000, "--init", "random", "--rows", 60, "--cost-per-1000", 10, "--out", tmp_path / "free")
    assert code == 0 and "asks the teacher 90 questions for the pool; the pool costs at most 0.9" in out, err
    assert "asked the teacher 90 questions now; this cost 0.9" in out


def test_the_score_of_a_limited_run_is_cached(tmp_path):
    counting = Counting()
    run = distill(counting.teacher(), tmp_path / "run", task="sst2", max_queries=460, data=ASSETS / "eval", **SMALL)
    asked, first = counting.count, run.distilled.report
    scored(run, TASKS["sst2"].validation(ASSETS / "eval"))
    assert asked == counting.count <= 460 and run.distilled.report == first is not None
