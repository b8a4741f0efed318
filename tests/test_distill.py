"What the distill notebook can't show: kills, a real Ctrl-C, a full disk, damaged files, two processes."

import gc
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zskd.adversaries import RandomInfill
from zskd.callbacks import Callback
from zskd.core import ASSETS
from zskd.errors import RunError, UserError, ZskdError
from zskd.generator import MaskedLMGenerator
from zskd.shapes import Shape
from zskd.stage2 import Stage2, read_generated
from zskd.students import Student
from zskd.teachers import Teacher
from zskd.training import STOP, Distiller

processes = multiprocessing.get_context("forkserver")  # the server of the root's conftest.py forks a clean process for each run


def rule(texts):
    score = np.array([t.count("good") + t.count("fine") - t.count("bad") - t.count("dull") for t in texts])
    p = 1 / (1 + np.exp(0.7 - 1.5 * score))
    return np.stack([1 - p, p], 1)


def until(true) -> None:
    end = time.monotonic() + 100
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


class Act(Callback):
    "Does something at a step."

    def __init__(self, what: str, at: int):
        self.what, self.at = what, at

    def on_step(self, run, step, loss):
        np.random.rand()
        if step != self.at:
            return
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        if self.what == "stop":
            raise KeyboardInterrupt
        if self.what == "stop file" and run.is_main:
            (run.out / STOP).touch()
        if self.what == "wait":
            (run.out / "waiting").touch()
            until(lambda: (run.out / "go").exists())
        if self.what == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def on_checkpoint(self, run):
        if self.what == "kill at checkpoint" and run.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_evaluate(self, run, metrics):
        if self.what == "kill at evaluation" and run.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class More(Callback):
    "Adds rows to each batch."

    def __init__(self, rows: int):
        self.rows = rows

    def settings(self):
        return {"rows": self.rows}

    def batch(self, run, batch):
        return batch.join([(f"good film {run.step + 1} {i}",) if i % 3 else ("dull day",) for i in range(self.rows)])


def adversary_of(kind: str) -> Stage2:
    made = {"infill": RandomInfill, "gumbel": MaskedLMGenerator}[kind]()
    return Stage2(made, start=0.25, ramp=0.0, rows=32, student_steps=6, generator_steps=2, learn_rows=8)


def distiller(
    out: Path, what: str, at: int, resume: bool, dropout: float = 0.1, more: int = 0, adversary: str = "", **settings
) -> Distiller:
    words = ["good", "bad", "fine", "dull", "day", "film", "plot"]
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(300)]
    shows_states = settings.get("hidden") or adversary == "gumbel"
    teacher = Teacher.load(ASSETS / "teacher") if shows_states else Teacher.from_callable(rule, ["negative", "positive"], name="rule")
    student = Student.create(teacher, shape=Shape(400, 16, 32, 1, 1, 2, 32), init="random", corpus=rows, max_length=16)
    for module in student.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    settings = {"steps": 24, "batch_size": 32, "evaluate_every": 5, "held_out": 60, "lr": 1e-2, **settings}
    against = adversary_of(adversary) if adversary else None
    return Distiller(
        teacher,
        student,
        rows,
        out,
        callbacks=[Act(what, at), *([More(more)] if more else [])],
        adversary=against,
        resume=resume,
        **settings,
    )


def work(out: Path, env: dict[str, str], *args, **kwargs) -> None:
    gc.freeze()  # what was imported
    os.environ.update({"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", **env})
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    said = out.with_name(f"{out.name}-said-{env.get('RANK', 0)}.json")
    try:
        run = distiller(out, *args, **kwargs)
        run.fit()
        result = {
            "best": run.best,
            "majority": run.majority,
            "seconds": run.seconds,
            "processes": run.world,
            "queries": run.state.queries.extra,
        }
    except (ZskdError, KeyboardInterrupt) as e:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        result = {"error": type(e).__name__, "text": str(e)}
    said.write_text(json.dumps(result))


def run(out: Path, what: str = "nothing", at: int = 0, resume: bool = False, n: int = 1, **kwargs) -> dict | int:
    "What the (first) process said, or its exit code if it said nothing."
    said = out.with_name(f"{out.name}-said-0.json")
    said.unlink(missing_ok=True)
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = str(s.getsockname()[1])
    shared = {
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true",
    }  # as `accelerate launch` sets
    envs = [{"RANK": str(i), "LOCAL_RANK": str(i), **shared} if n > 1 else {} for i in range(n)]
    started = [processes.Process(target=work, args=(out, env, what, at, resume), kwargs=kwargs) for env in envs]
    for p in started:
        p.start()
    for p in started:
        p.join(120)
        if p.is_alive():
            p.kill()
    return json.loads(said.read_text()) if said.exists() else started[0].exitcode


def step(out: Path) -> int:
    return json.loads((out / "checkpoints" / "checkpoint.json").read_text())["step"]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student" / "model.safetensors")


def identical(a: Path, b: Path) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def first(out: Path) -> dict[str, torch.Tensor]:
    return load_file(next((out / "checkpoints").glob("start-*")))


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    "Distance of two sets of weights."
    return torch.cat([(a[k] - b[k]).flatten() for k in a]).norm().item()


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    "A run that nobody disturbed."
    out = tmp_path_factory.mktemp("calm") / "run"
    said = run(out)
    assert said["best"]["step"] % 5 in (0, 4) and said["processes"] == 1
    return out


def test_killed_three_times_and_resumed_is_the_same_student(calm, tmp_path):
    out = tmp_path / "run"
    assert run(out, "kill", 2) == -signal.SIGKILL and step(out) == 0
    assert run(out, "kill", 13, resume=True) == -signal.SIGKILL and step(out) == 10
    assert run(out, "kill at checkpoint", 15, resume=True) == -signal.SIGKILL and step(out) == 15
    assert run(out, "kill at evaluation", 20, resume=True) == -signal.SIGKILL and step(out) == 15
    done = run(out, resume=True)
    assert identical(out, calm)
    assert run(out, resume=True) == done  # finished: returns at once, and no time is added


def test_interrupt_writes_a_checkpoint_and_says_how_to_resume(calm, tmp_path):
    out = tmp_path / "run"
    said = run(out, "Ctrl-C", 13)
    assert said["error"] == "KeyboardInterrupt"
    assert said["text"] == f"interrupted at step 13 of 24; continue with resume=True and folder {out}"
    assert step(out) == 13
    assert "best" in run(out, resume=True)
    assert identical(out, calm)


def test_interrupt_while_the_teacher_answers_says_how_far_it_came(tmp_path):
    asked = []

    def interrupted(texts):
        if len(asked) == 192:
            raise KeyboardInterrupt
        asked.extend(texts)
        return rule(texts)

    run = distiller(tmp_path / "run", "nothing", 0, False)
    run.teacher = Teacher.from_callable(interrupted, ["negative", "positive"], name="rule", batch_size=64)
    stored = r"^interrupted \(192 new answers of the teacher are stored\); continue with resume=True and folder"
    with pytest.raises(KeyboardInterrupt, match=stored):
        run.fit()
    again = distiller(tmp_path / "run", "nothing", 0, True)
    again.fit()
    assert again.teacher.queries == 108 and again.step == 24


def test_the_batch_that_is_chosen_belongs_to_the_configuration(tmp_path):
    run = distiller(tmp_path / "run", "stop", 7, False, batch_size=None)
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 7 of 24"):
        run.fit()
    assert run.config()["batch_size"] == json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 32
    again = distiller(tmp_path / "run", "nothing", 0, True, batch_size=32)  # saying the same in so many words is the same run
    again.fit()
    assert again.step == 24
    with pytest.raises(UserError, match="batch_size=32: the pool has 20 rows to train on"):
        distiller(tmp_path / "few", "nothing", 0, False, batch_size=None, held_out=280)


def test_a_file_stops_all_processes(tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    said = run(out, "stop file", 7, n=2)
    assert said["error"] == "KeyboardInterrupt" and step(out) == 7 and not (out / STOP).exists()
    assert run(out, resume=True, n=2)["processes"] == 2 == run(whole, n=2)["processes"]
    assert identical(out, whole)


def test_full_disk_leaves_the_earlier_checkpoint(calm, tmp_path):
    out = tmp_path / "run"
    said = run(out, "full", 12)
    assert said["error"] == "RunError" and "checkpoints" in said["text"] and "free some space" in said["text"]
    assert step(out) == 10
    assert not list((out / "checkpoints").glob(".*"))
    assert "best" in run(out, resume=True)
    assert identical(out, calm)


def test_damaged_checkpoint_is_named(tmp_path):
    out = tmp_path / "run"
    run(out, "kill", 13)
    (state,) = (out / "checkpoints").glob("state-*")
    state.write_bytes(state.read_bytes()[:-1])
    said = run(out, resume=True)
    assert said["error"] == "RunError" and str(state) in said["text"] and "damaged" in said["text"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1])], ids=["cut short", "altered"])
def test_a_damaged_shard_of_logits_is_asked_again_and_no_other(tmp_path, monkeypatch, damage):
    asked = []

    def counted(texts, answer=rule):
        asked.extend(texts)
        return answer(texts)

    monkeypatch.setitem(globals(), "rule", counted)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distiller(out, "stop", 7, False).fit()
    shard, *others = sorted((out / "logits").rglob("*.safetensors"))
    assert len(asked) == 300 and others
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(RunError, match="delete it, and only its rows are asked again") as e:
        distiller(out, "nothing", 0, True).fit()
    assert str(shard) in str(e.value)
    shard.unlink()
    asked.clear()
    again = distiller(out, "nothing", 0, True)
    again.fit()
    texts = [text for (text,) in again.texts()]
    assert again.step == 24 and asked in [texts[i : i + 64] for i in range(0, 300, 64)]


def test_of_two_starts_one_trains(calm, tmp_path):
    out = tmp_path / "run"
    first = processes.Process(target=work, args=(out, {}, "wait", 7, False))
    first.start()
    until(lambda: (out / "waiting").exists())
    with pytest.raises(UserError) as e:
        distiller(out, "nothing", 0, True).fit()
    assert (
        str(e.value)
        == f"{out}: is being written by process {first.pid} on host {socket.gethostname()}; wait for it, or choose another place"
    )
    (out / "go").touch()
    first.join(100)
    assert first.exitcode == 0 and identical(out, calm) and not (out / ".lock").exists()


def test_what_a_kill_has_left_is_cleared(calm, tmp_path):
    out = tmp_path / "run"
    assert run(out, "kill", 13) == -signal.SIGKILL and (out / ".lock").exists()
    for folder in (out / ".student.999999999.tmp", out / ".pool.999999999.tmp"):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    files = [
        out / ".config.json.999999999.tmp",
        out / "checkpoints" / ".state-000015.safetensors.999999999.tmp",
        next((out / "logits").iterdir()).with_name(".0.safetensors.999999999.tmp"),
    ]
    for file in files:
        file.write_bytes(b"half")
    run(out, resume=True)
    assert identical(out, calm) and not list(out.rglob(".*"))


def test_no_change_of_the_counters_passes(calm, tmp_path):
    out = tmp_path / "run"
    run(out, "kill", 13)
    path = out / "checkpoints" / "checkpoint.json"
    index, resumed = json.loads(path.read_text()), distiller(out, "nothing", 0, True)

    def changed(value):
        return {**value, "more": 1} if isinstance(value, dict) else [*value, 1] if isinstance(value, list) else value + 1

    for key in index.keys() - {"sha256"}:
        for other in ({**index, key: changed(index[key])}, {k: v for k, v in index.items() if k != key}):
            path.write_text(json.dumps(other))
            with pytest.raises(
                RunError,
                match="checkpoint.json: is damaged or was changed .*; delete .*checkpoints and resume, which trains from the start",
            ) as e:
                resumed.fit()
            assert "\n" not in str(e.value)
    earlier = {
        k: v for k, v in index.items() if k not in ("sha256", "generated", "stop", "queries", "epoch", "epoch_begin")
    }  # as version 0.1.0 wrote it
    path.write_text(json.dumps(earlier))
    run(out, resume=True)
    assert identical(out, calm)
    shutil.rmtree(path.parent)  # what the message says to do
    run(out, resume=True)
    assert identical(out, calm)


def test_teacher_and_student_of_unequal_classes(tmp_path):
    run = distiller(tmp_path / "run", "nothing", 0, False)
    three = Teacher.from_callable(rule, ["a", "b", "c"], name="three")
    with pytest.raises(UserError, match="2 classes and the model 3"):
        Distiller(three, run.start, run.pool, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "kl+0.1*logit_mse"},
        {"loss": "dist(beta=0)"},
        {"more": 8},
        {"hidden": 1.0},
        {"adversary": "infill"},
        {"adversary": "gumbel"},
    ],
    ids=["kl", "dist", "rows of a callback", "hidden states", "adversary", "adversary that learns"],
)
def test_two_processes_give_the_student_of_one(tmp_path, settings):
    one = run(tmp_path / "one", dropout=0.0, lr=3e-3, **settings)
    two = run(tmp_path / "two", dropout=0.0, lr=3e-3, n=2, **settings)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert (
        one["queries"]
        == two["queries"]
        == {"infill": 3 * 32, "gumbel": 3 * (32 + 2 * 2 * 8)}.get(settings.get("adversary"), 24 * settings.get("more", 0))
    )
    assert one["best"]["step"] == two["best"]["step"] and abs(one["best"]["kl"] - two["best"]["kl"]) < 1e-4
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "two")) < 0.01 * apart(weights(tmp_path / "one"), first(tmp_path / "one"))


def test_a_batch_that_two_processes_cannot_share(tmp_path):
    assert "choose a multiple" in run(tmp_path / "run", batch_size=31, n=2)["text"]
    assert "added 7 rows, which 2 processes cannot share equally" in run(tmp_path / "rows", more=7, n=2)["text"]


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_two_processes_with_dropout_killed_and_resumed(tmp_path, hidden):
    assert run(tmp_path / "calm", n=2, hidden=hidden)["processes"] == 2
    run(tmp_path / "run", "kill", 13, n=2, hidden=hidden)
    assert step(tmp_path / "run") == 10
    run(tmp_path / "run", resume=True, n=2, hidden=hidden)
    assert identical(tmp_path / "run", tmp_path / "calm")


@pytest.mark.parametrize("adversary", ["infill", "gumbel"])
def test_an_adversary_killed_and_resumed(tmp_path, adversary):
    run(tmp_path / "calm", adversary=adversary)
    run(tmp_path / "run", "kill", 17, adversary=adversary)
    assert step(tmp_path / "run") == 15
    run(tmp_path / "run", resume=True, adversary=adversary)
    assert identical(tmp_path / "run", tmp_path / "calm")
    written = [read_generated(tmp_path / name) for name in ("run", "calm")]
    assert written[0] == written[1] and {w["step"] for w in written[0]} == {7, 13, 19}


def test_no_bytes_are_left_behind(calm):
    assert sorted(p.name.split("-")[0] for p in (calm / "checkpoints").iterdir()) == ["best", "checkpoint.json", "start"]
