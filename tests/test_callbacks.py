"Callbacks together: every pair of them runs, is killed and resumed, and gives the student of a run that nobody disturbed."

import copy
import gc
import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker
from safetensors.torch import load_file

from zskd.adversaries import MaxDivergenceSearch, RandomInfill
from zskd.callbacks import Batch, Callback, Run, Schedule
from zskd.core import ASSETS
from zskd.errors import UserError
from zskd.generator import MaskedLMGenerator
from zskd.methods.anchors import AnchorMixup
from zskd.methods.backward import BackwardPass
from zskd.methods.communication import Communication
from zskd.methods.hidden import HiddenStates
from zskd.methods.inconsistent import InconsistentAugmentation
from zskd.methods.prior import DynamicPrior
from zskd.methods.rolewise import Policy, RoleAugmentation
from zskd.methods.shift import ConfidentRows, MixedDistributions, SharedClassifier
from zskd.methods.skeptical import Skeptical
from zskd.methods.uncertainty import UncertainRows, UncertaintyMixup
from zskd.pretraining import MaskedWords, Relations
from zskd.search import GradientSearch
from zskd.shapes import CnnShape, Shape
from zskd.stage2 import Stage2
from zskd.students import Student
from zskd.teachers import Teacher
from zskd.tracking import TrackerCallback
from zskd.training import Distiller

WORDS = ["good", "bad", "fine", "dull", "day", "film", "plot", "the", "a", "was", "of", "and"]
STEPS, KILL = 7, 5  # a checkpoint is written after every third step

processes = multiprocessing.get_context("forkserver")  # the server of the root's conftest.py


class Rows(Callback):
    "Adds rows of its own, which the teacher is asked about."

    def settings(self):
        return {}

    def batch(self, run: Run, batch: Batch) -> Batch:
        rng = np.random.default_rng(run.step)
        return batch.join([" ".join(rng.choice(WORDS, 4)) for _ in range(4)])


class Half(Callback):
    "Drops the half of a batch on which the student is surest."

    def settings(self):
        return {}

    def batch(self, run: Run, batch: Batch) -> Batch:
        return batch.take(run.student_logits(batch).softmax(1).amax(1).argsort()[: len(batch) // 4 * 2])


class Mixed(Callback):
    "Adds nothing, but mixes each input with another one."

    def settings(self):
        return {}

    def batch(self, run: Run, batch: Batch) -> Batch:
        return batch.soft(batch.take(np.roll(np.arange(len(batch)), 1)), 0.7)


class Slopes(Callback):
    "Weighs each input by how much the teacher's answer changes with its words."

    def settings(self):
        return {}

    def loss(self, run: Run, batch: Batch, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        answer = run.ask(batch, grad=True)
        (slope,) = torch.autograd.grad(answer.logits[:, 0].sum(), answer.vectors)
        weight = slope.flatten(1).norm(dim=1).to(student_logits.device)
        return 0.1 * (weight / weight.mean() * (student_logits - teacher_logits).square().mean(1)).mean()


class Chosen(Callback):
    "Reads the shorter half of the rows only, the shortest first."

    def settings(self):
        return {}

    def rows(self, run: Run, epoch: int) -> np.ndarray:
        order = run.train[np.argsort(run.lengths[run.train], kind="stable")]
        return np.roll(order[: len(order) // 2], epoch)


class Head(Callback):
    "Puts a layer before the classifier, and folds it back."

    def settings(self):
        return {}

    def modules(self, run: Run) -> dict[str, torch.nn.Module]:
        old = run.student.model.classifier
        new = torch.nn.Linear(old.in_features, old.in_features)
        torch.nn.init.eye_(new.weight)
        run.student.model.classifier = torch.nn.Sequential(new, old).to(run.accelerator.device)
        return {}

    def finish(self, run: Run, student: Student) -> Student:
        first, last = student.model.classifier
        folded = copy.deepcopy(last)
        folded.weight.data = last.weight.data @ first.weight.data
        folded.bias.data = last.bias.data + last.weight.data @ first.bias.data
        student.model.classifier = folded
        return student


class Mine(GeneralTracker):
    name, requires_logging_directory, main_process_only = "mine", False, False
    tracker = None

    def __init__(self):
        super().__init__()
        self.seen = []

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **kwargs):
        self.seen.append(step)


def stage2(adversary) -> Stage2:
    return Stage2(adversary, share=0.5, start=0.2, ramp=0.0, rows=8, student_steps=2, generator_steps=1, learn_rows=4)


def with_relations(states: HiddenStates) -> list[Callback]:
    return [states, Relations(states, 0.3, heads=2)]


SHIPPED = {
    "hidden": lambda: [HiddenStates(0.5, 16)],
    "relations": lambda: with_relations(HiddenStates(0.5, 16)),
    "words": lambda: [MaskedWords(Schedule(0.2, 0.1))],
    "tracker": lambda: [TrackerCallback(Mine())],
    "infill": lambda: [stage2(RandomInfill())],
    "search": lambda: [stage2(MaxDivergenceSearch())],
    "generator": lambda: [stage2(MaskedLMGenerator())],
    "gradient": lambda: [stage2(GradientSearch())],
    "unix": lambda: [UncertaintyMixup()],
    "uncertain": lambda: [UncertainRows()],
    "prior": lambda: [DynamicPrior(0.5, 16)],
    "inconsistent": lambda: [InconsistentAugmentation(0.25, words=0.5, steps=2, size=16, rows=8, every=2)],
    "backward": lambda: [BackwardPass()],
    "backward-text": lambda: [BackwardPass("text", every=2, steps=2)],
    "selection": lambda: [ConfidentRows()],
    "classifier": lambda: [SharedClassifier(kl=False)],
    "styles": lambda: [MixedDistributions()],
    "skeptical": lambda: [Skeptical("tempered", delay=0.2)],
    "anchors": lambda: [AnchorMixup(steps=2, until=0.9)],
    "talking": lambda: [Communication(every=2, size=32)],
    "roles": lambda: [RoleAugmentation(Policy({"drop": (9, 4), "infill": (9, 4)}), Policy({"spacing": (9, 4)}), share=0.5, views=2)],
}
OWN = {
    "rows": lambda: [Rows()],
    "half": lambda: [Half()],
    "mixed": lambda: [Mixed()],
    "slopes": lambda: [Slopes()],
    "chosen": lambda: [Chosen()],
    "head": lambda: [Head()],
}
ALL = SHIPPED | OWN
ADVERSARIES = {"infill", "search", "generator", "gradient"}
ONE_OF = [ADVERSARIES, {"selection", "chosen"}, {"classifier", "head"}, {"classifier", "skeptical"}]  # those that exclude each other
PAIRS = [pair for pair in itertools.combinations(ALL, 2) if all(len(group & set(pair)) < 2 for group in ONE_OF)]
QUICK = [
    ("relations", "rows"),
    ("words", "infill"),
    ("hidden", "generator"),
    ("mixed", "relations"),
    ("words", "head"),
    ("slopes", "chosen"),
    ("tracker", "half"),
    ("unix", "relations"),
    ("uncertain", "words"),
    ("prior", "rows"),
    ("inconsistent", "half"),
    ("skeptical", "mixed"),
    ("backward", "hidden"),
    ("backward-text", "unix"),
    ("selection", "classifier"),
    ("styles", "mixed"),
    ("talking", "rows"),
]
QUICK_TWO = [("relations", "infill"), ("words", "half")]
FAMILY = ("unix", "selection", "styles", "inconsistent", "anchors", "talking", "roles")  # together in two processes


NO_CONVOLUTIONS = ("words", "talking")  # the pretraining of encoders; states of two layers with the same width
READ_WORDS = ("generator", "unix", "backward", "anchors")  # vectors of words


class Act(Callback):
    "Ends the process, or the run as a second Ctrl-C does, at a step."

    def __init__(self, what: str):
        self.what = what

    def on_step(self, run, step, loss):
        if step == KILL and self.what == "interrupt":
            raise KeyboardInterrupt
        if step == KILL and self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


@cache
def the_teacher() -> Teacher:
    return Teacher.load(ASSETS / "teacher", precision="fp32")


@cache
def the_rows() -> tuple[str, ...]:
    rng = np.random.default_rng(0)
    return tuple(" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(120))


@cache
def the_student() -> Student:
    return Student.create(the_teacher(), shape=Shape(400, 16, 32, 1, 1, 2, 32), init="random", corpus=list(the_rows()), max_length=16)


def distiller(
    out: Path, names: tuple[str, ...], what: str = "nothing", resume: bool = False, more: tuple[Callback, ...] = (), **settings
) -> Distiller:
    settings = {"steps": STEPS, "batch_size": 16, "evaluate_every": 3, "held_out": 40, "lr": 1e-2, **settings}
    callbacks = [c for name in names for c in ALL[name]()]
    return Distiller(
        the_teacher(),
        the_student(),
        list(the_rows()),
        out,
        callbacks=[*callbacks, *more, Act(what)],
        cache=out.parent / "logits",
        resume=resume,
        **settings,
    )


def work(out: Path, env: dict[str, str], *args) -> None:
    gc.freeze()  # what was imported
    os.environ.update({"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", **env})
    torch.set_num_threads(1)
    run = distiller(out, *args)
    run.fit()
    if run.is_main:
        out.with_name(f"{out.name}.json").write_text(json.dumps(vars(run.state.queries)))


def started(out: Path, n: int, *args) -> list[int]:
    "Exit codes of so many processes that do a run together."
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = str(s.getsockname()[1])
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "localhost", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    envs = [{"RANK": str(i), "LOCAL_RANK": str(i), **shared} for i in range(n)]
    ours = [processes.Process(target=work, args=(out, env, *args)) for env in envs]
    for p in ours:
        p.start()
    for p in ours:
        p.join(120)
        if p.is_alive():
            p.kill()
    return [p.exitcode for p in ours]


def identical(a: Path, b: Path) -> bool:
    x, y = (load_file(out / "student" / "model.safetensors") for out in (a, b))
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def step(out: Path) -> int:
    return json.loads((out / "checkpoints" / "checkpoint.json").read_text())["step"]


def marked(pairs: list[tuple[str, ...]], quick: list[tuple[str, ...]]) -> list:
    "The quick pairs run always, the others with the flag `slow`."
    return [pytest.param(pair, id="+".join(pair), marks=() if pair in quick or pair[::-1] in quick else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize("pair", marked(PAIRS, QUICK))
def test_a_pair_broken_off_and_resumed_gives_the_same_student(tmp_path, pair):
    calm = distiller(tmp_path / "calm", pair)
    calm.fit()
    with pytest.raises(KeyboardInterrupt, match=f"interrupted at step {KILL} of {STEPS}"):
        distiller(tmp_path / "run", pair, "interrupt").fit()
    assert step(tmp_path / "run") == 3
    resumed = distiller(tmp_path / "run", pair, resume=True)
    resumed.fit()
    assert identical(tmp_path / "calm", tmp_path / "run")
    assert resumed.state.queries == calm.state.queries  # no question is lost, none is counted twice
    assert set(resumed.distilled.model.state_dict()) == set(the_student().model.state_dict())


@pytest.mark.parametrize("pair", marked([*PAIRS, FAMILY], [*QUICK_TWO, FAMILY]))
def test_a_pair_in_two_processes_killed_and_resumed_gives_the_same_student(tmp_path, pair):
    assert started(tmp_path / "calm", 2, pair) == [0, 0]
    assert -signal.SIGKILL in started(tmp_path / "run", 2, pair, "kill") and step(tmp_path / "run") == 3
    assert started(tmp_path / "run", 2, pair, "nothing", True) == [0, 0]
    assert identical(tmp_path / "calm", tmp_path / "run")
    assert (tmp_path / "calm.json").read_text() == (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(("name", "hash_rows"), [*((name, 0) for name in SHIPPED), *((name, 90) for name in READ_WORDS)])
def test_a_student_without_attention(tmp_path, name, hash_rows):
    "Every method works with it, or refuses in one line before anything is computed."
    shape, teacher = CnnShape(400, 8, (1, 2, 3), 8, 8, hash_rows=hash_rows), the_teacher()
    student = Student.create(teacher, shape=shape, init="random", corpus=list(the_rows()), max_length=16)
    settings = {"steps": 4, "batch_size": 16, "held_out": 40, "cache": tmp_path / "logits"}
    made = [c for other in (name,) for c in ALL[other]()]
    if name in NO_CONVOLUTIONS:
        with pytest.raises(UserError, match="\\A[^\n]*leave it out[^\n]*\\Z"):
            Distiller(teacher, student, list(the_rows()), tmp_path / "run", callbacks=made, **settings)
        return
    run = Distiller(teacher, student, list(the_rows()), tmp_path / "run", callbacks=made, **settings)
    run.fit()
    found = Student.load(tmp_path / "run" / "student")
    assert found.model.config.model_type == "zskd-textcnn" and np.isfinite(found.logits(list(the_rows())[:4])).all()
    assert any(not torch.equal(a, b) for a, b in zip(run.student.model.parameters(), student.model.parameters(), strict=True))


def test_everything_together(tmp_path):
    ours = ("inconsistent", "skeptical", "roles")
    names = ("relations", "words", "tracker", "generator", "rows", *ours, "half", "slopes", "chosen", "head")
    run = distiller(tmp_path / "run", names)
    run.fit()
    assert run.step == STEPS and Student.load(tmp_path / "run" / "student").n_params == the_student().n_params


# ---- what went wrong before


def test_what_is_reported_is_what_was_asked(tmp_path):
    teacher = Teacher.load(ASSETS / "teacher", precision="fp32")
    run = distiller(tmp_path / "run", ("infill", "rows", "mixed", "slopes"))
    run.teacher = teacher
    before = []

    class Begin(Callback):
        def on_start(self, run):
            before.extend([teacher.queries, teacher.backward_queries])

    run.callbacks.append(Begin())
    compute, asked = teacher.compute, []
    teacher.compute = lambda rows: asked.append(len(rows)) or compute(rows)
    run.fit()
    assert sum(asked) - len(the_rows()) == teacher.queries - before[0]  # texts asked in training, by the adversary and by `join`
    queries = run.state.queries
    assert queries.adversary == 3 * 8 and queries.adversary_backward == 0  # turns at steps 2, 4 and 6
    sizes = [16 + 4] * STEPS  # of each batch: as many of the adversary as give way, then those of `rows`
    assert queries.forward == 3 * 8 + STEPS * 4 + 2 * sum(sizes) and queries.backward == sum(
        sizes
    )  # mixed once, and once more with a gradient
    assert run.facts()["queries"] == {
        "ood": len(the_rows()),
        "words": the_student().notes.get("word_queries", 0),
        "adversarial": queries.extra,
    }
    assert run.distilled.notes["run"]["queries"]["adversarial"] == queries.extra


def test_more_rows_than_a_batch(tmp_path):
    seen = []

    class Others(Callback):
        def batch(self, run, batch):
            return batch.take([]).join(["a dull film"] * 40)

        def loss(self, run, batch, student_logits, teacher_logits):
            seen.append((len(student_logits), set(batch.rows)))

    run = distiller(tmp_path / "run", ("hidden", "words"), more=(Others(),), steps=2)
    run.fit()
    assert seen == [(40, {-1})] * 2 and run.state.queries.extra == 80


def test_relations_leave_out_rows_that_are_not_from_the_pool(tmp_path):
    class Compare(Callback):
        hidden_states = True

        def loss(self, run, batch, student_logits, teacher_logits):
            relations = next(c for c in run.callbacks if isinstance(c, Relations))
            known = batch.take(batch.rows >= 0)
            known.hidden_states = tuple(s[: len(known)] for s in batch.hidden_states)
            both = [relations.loss(run, b, student_logits, teacher_logits).item() for b in (batch, known)]
            assert len(batch) == 20 and len(known) == 16 and both[0] == pytest.approx(both[1], rel=1e-5)

    distiller(tmp_path / "run", ("relations", "rows"), more=(Compare(),), steps=2).fit()


def test_a_changed_head_is_folded_back(tmp_path):
    run = distiller(tmp_path / "run", ("head",))
    small = run.fit()
    ordinary = Student.load(tmp_path / "run" / "student")
    texts = list(the_rows())[:10]
    assert np.allclose(ordinary.logits(texts), small.logits(texts), atol=1e-5)
    wide = copy.copy(small)  # the student as it was trained, with the layer before the classifier
    wide.model = copy.deepcopy(run.average.model).cpu()
    wide.model.load_state_dict({k: v for k, v in run.best_weights.items() if not k.startswith("callback.")})
    assert np.allclose(wide.logits(texts), small.logits(texts), atol=1e-4)
    (tmp_path / "run" / "student" / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="is written again from the checkpoint"):
        again = distiller(tmp_path / "run", ("head",), resume=True).fit()
    assert (
        np.array_equal(again.logits(texts), small.logits(texts)) and Student.load(tmp_path / "run" / "student").n_params == small.n_params
    )


def test_a_changed_head_that_nobody_folds_back_is_refused_before_the_first_step(tmp_path):
    class Forgets(Callback):
        modules = Head.modules

    with pytest.raises(UserError, match="no callback has a method finish"):
        distiller(tmp_path / "run", (), more=(Forgets(),)).fit()


def test_the_loss_neighbours_is_known_by_itself():
    code = "from zskd.losses import parse_loss; import sys; print(parse_loss('0.5*neighbours'), 'zskd.pretraining' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["0.5*neighbours", "False"]


# ---- what the interface promises


def test_pairs_that_do_not_compose_say_why(tmp_path):
    refused = {
        ("infill", "generator"): "2 of them are a Stage2",
        ("chosen", "chosen"): "Chosen and Chosen-2 each choose the rows of an epoch",
        ("selection", "chosen"): "ConfidentRows and Chosen each choose the rows of an epoch",
        ("classifier", "head"): "SharedClassifier and Head both change the student's model",
    }
    for names, why in refused.items():
        with pytest.raises(UserError, match=why) as e:
            distiller(tmp_path / "run", names)
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="the HiddenStates of Relations is missing"):
        distiller(tmp_path / "run", (), more=(Relations(HiddenStates()),))
    assert not (tmp_path / "run").exists()


def test_the_run_ends_before_a_question_goes_over_the_limit(tmp_path):
    run = distiller(tmp_path / "run", ("rows",), max_queries=10)
    run.fit()
    assert (run.step, run.state.queries.extra) == (2, 8) and (tmp_path / "run" / "student").exists()
    again = distiller(tmp_path / "run", ("rows",), resume=True, max_queries=10)
    again.fit()
    assert again.step == 2 and again.best == run.best


def test_rows_of_an_epoch(tmp_path):
    seen = []

    class See(Callback):
        def batch(self, run, batch):
            seen.append(batch.rows.tolist())

    run = distiller(tmp_path / "run", ("chosen",), more=(See(),))
    run.fit()
    chosen = [Chosen().rows(run, epoch) for epoch in (0, 1, 2)]
    assert seen == [chosen[i // 2][i % 2 * 16 : i % 2 * 16 + 16].tolist() for i in range(6)] + [seen[6]]  # 40 rows: two batches an epoch

    class Wrong(Callback):
        def rows(self, run, epoch):
            return run.held

    with pytest.raises(UserError, match="choose at least 16 .one batch. from run.train"):
        distiller(tmp_path / "wrong", (), more=(Wrong(),)).fit()


def test_a_weight_that_ends(tmp_path):
    terms = []

    class Ending(HiddenStates):
        def loss(self, *args):
            value = super().loss(*args)
            terms.append(None if value is None else value.item())
            return value

    distiller(tmp_path / "run", (), more=(Ending(Schedule(1.0, 0.0, 0.0, 0.5)),), steps=4).fit()
    assert terms[2:] == [None, None] and terms[0] > 1.5 * terms[1] > 0


def test_a_term_that_replaces_the_loss(tmp_path):
    class Instead(Callback):
        pooled = replaces_loss = True

        def loss(self, run, batch, student_logits, teacher_logits):
            assert batch.pooled.shape == (len(batch), run.start.model.config.hidden_size) and batch.pooled.requires_grad
            return batch.pooled.square().mean()

    run = distiller(tmp_path / "run", (), more=(Instead(),), weight_decay=0.0)
    small = run.fit().model.state_dict()
    assert run.about_loss == ["Instead: in place of the loss of the answers"]
    same = {k for k, v in run.start.model.state_dict().items() if torch.equal(v, small[k])}
    assert {"classifier.weight", "classifier.bias"} <= same < set(small)  # the answers were not learned


def test_modules_are_averaged_and_kept_with_the_best(tmp_path):
    run = distiller(tmp_path / "run", ("words",))
    run.fit()
    head = next(c for c in run.callbacks if isinstance(c, MaskedWords)).head
    kept = {k.removeprefix("callback.MaskedWords.head."): v for k, v in run.best_weights.items() if k.startswith("callback.")}
    assert kept and all(torch.equal(v, kept[k]) for k, v in head.state_dict().items())


def test_the_loss_of_the_run_reads_other_answers_and_callbacks_read_the_teachers(tmp_path):
    class First(Callback):
        def answers(self, run, batch, teacher_logits):
            return torch.tensor([2.0, -2.0]).expand_as(teacher_logits)

    class After(Callback):
        seen = []

        def answers(self, run, batch, teacher_logits):
            assert (teacher_logits[:, 0] == 2).all()  # as the callback before this one has left them

        def loss(self, run, batch, student_logits, teacher_logits):
            assert torch.equal(teacher_logits, run.targets[batch.rows])
            self.seen.append((student_logits[:, 0] - student_logits[:, 1]).min().item())

    run = distiller(tmp_path / "run", (), more=(First(), After()), steps=40)
    run.fit()
    assert After.seen[0] < 0.5 and After.seen[-1] > 2  # it gives every text the first class


def test_answers_without_a_loss_are_refused(tmp_path):
    with pytest.raises(UserError, match="SharedClassifier replaces the loss of the answers, so Skeptical would change them in vain") as e:
        distiller(tmp_path / "run", (), more=(SharedClassifier(kl=False), Skeptical("hard")))
    assert "\n" not in str(e.value)


def test_mixtures_need_shared_pieces(tmp_path):
    student = Student.create(the_teacher(), shape=Shape(300, 16, 32, 1, 1, 2, 32), init="random", corpus=["żółw jaźń"] * 50)
    function = Teacher.from_callable(lambda texts: np.full((len(texts), 2), 0.5), the_teacher().labels, name="half")
    run = Distiller(function, student, list(the_rows()), tmp_path / "run", callbacks=[Mixed()], steps=2, batch_size=16, held_out=40)
    with pytest.raises(UserError, match="is a function") as e:
        run.fit()
    assert "\n" not in str(e.value)
