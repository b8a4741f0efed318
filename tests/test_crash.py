"""A kill at every point: small runs of each kind are copied before each of their file operations, and every copy is resumed.

`pytest tests/test_crash.py` tries 25 points at random (ZSKD_CRASH_SEED repeats a choice), `--flags slow` tries all of them."""

import contextlib
import copy
import gzip
import io
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from models import make_teacher, tiny_bert
from transformers import BertForMaskedLM

from zskd import cli, evaluation
from zskd.core import ASSETS, LOCK, file_digest, writing
from zskd.errors import UserError, ZskdError
from zskd.generator import MaskedLMGenerator
from zskd.shapes import Shape
from zskd.stage2 import Stage2
from zskd.students import Student
from zskd.teachers import Teacher
from zskd.training import Distiller

SOME = 25  # points that are tried without `--flags slow`
State = dict[str, bytes | None]  # files and folders (None) below a place


# ---- watching a run


class Watch:
    "Keeps what lies below a folder before each operation that changes something there."

    current: "Watch | None" = None

    def __init__(self, top: Path):
        self.top, self.points, self.busy = str(top), [], False

    def __enter__(self) -> "Watch":
        Watch.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Watch.current = None
        self.points.append(("the end", read(Path(self.top))))

    def note(self, event: str, args: tuple) -> None:
        if self.busy or not (path := changes(event, args)) or not path.startswith(self.top) or path.endswith(LOCK):
            return
        self.busy = True
        try:
            self.points.append((f"{event} {Path(path).name}", read(Path(self.top))))
        finally:
            self.busy = False


def changes(event: str, args: tuple) -> str | None:
    "The path that an operation is about to change."
    if event == "open":
        path, mode, flags = args
        writes = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return os.path.abspath(os.fsdecode(path)) if writes and not isinstance(path, int) else None
    if event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"):
        return None
    path, folder = os.fsdecode(args[0]) if not isinstance(args[0], int) else "", args[-1]
    if event in ("os.remove", "os.rmdir") and folder != -1:  # named from its folder, as shutil.rmtree does
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.abspath(path)


sys.addaudithook(lambda event, args: Watch.current.note(event, args) if Watch.current is not None else None)


def read(top: Path) -> State:
    return {str(p.relative_to(top)): None if p.is_dir() else p.read_bytes() for p in sorted(top.rglob("*"))}


def put(top: Path, state: State) -> None:
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    for name, content in state.items():
        (top / name).mkdir(parents=True) if content is None else (top / name).write_bytes(content)


# ---- the runs


@dataclass
class Kind:
    "A kind of run: what starts it and resumes it alike, in a folder that holds all that it makes."

    top: Path
    go: Callable[[Path], int]  # gives an exit code
    may_refuse: str = ""  # a line that a second start may end in, in place of the result
    points: list[tuple[str, State]] = field(default_factory=list)
    result: dict[str, object] = field(default_factory=dict)

    def run(self) -> tuple[int, str]:
        "Exit code, and what was said on standard error."
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = self.go(self.top)
        return code, said.getvalue()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Iterator[dict[str, Kind]]:
    "Every kind of run, each done once while it was watched."
    threads, top, latency = torch.get_num_threads(), tmp_path_factory.mktemp("crash"), evaluation.latency
    torch.set_num_threads(1)
    evaluation.latency = lambda *_: 1.0  # how fast a model answers is not part of the result
    sizes = {"hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 128}
    teacher = make_teacher(top / "models" / "teacher", n_texts=None, **sizes)
    words = top / "models" / "words"
    tiny_bert(BertForMaskedLM, words, **sizes)
    with gzip.open(ASSETS / "wikipedia.txt.gz", "rt", encoding="utf-8") as file:
        paragraphs = file.read().split("\n")[:60]
    corpus, data = top / "corpus.txt", top / "data" / "SST-2"
    corpus.write_text("\n".join(paragraphs), encoding="utf-8")
    data.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv"):
        (data / name).write_text(
            "sentence\tlabel\n" + "".join(f"{'a good' if i % 2 else 'a bad'} film, number {i}\t{i % 2}\n" for i in range(16))
        )

    def command(name: str, *more: object, out: str = "out") -> Callable[[Path], int]:
        return lambda folder: cli.main([name, *map(str, more), "--out", str(folder / out)])

    text, small = ("--corpus", corpus, "--n", 64), ("--vocab-size", 300, "--batch-size", 16, "--lr", 1e-2, "--resume")
    made = {
        "distill": Kind(
            top / "distill",
            command(
                "distill",
                "--teacher",
                teacher,
                "--task",
                "sst2",
                *text,
                *small,
                "--params",
                20_000,
                "--init",
                "random",
                "--steps",
                5,
                "--data",
                data.parent,
            ),
        ),
        "adversary": Kind(top / "adversary", against(Teacher.load(teacher), Student, words, paragraphs)),
        "pretrain": Kind(
            top / "pretrain", command("pretrain", "--encoder", teacher, *text, *small, "--params", 40_000, "--epochs", 1, "--words", 0.1)
        ),
        "pool": Kind(top / "pool", command("pool", "--teacher", teacher, "--task", "sst2", *text), "holds other files"),
        "write": Kind(top / "write", command("write", "--rewrite", corpus, "--model", words, "--rounds", 1, "--n", 80, out="out.jsonl")),
        "teacher": Kind(
            top / "teacher",
            command("teacher", "--task", "sst2", "--base", teacher, "--data", data.parent, "--epochs", 1, "--batch-size", 8),
            "holds other files",
        ),
    }
    for kind in made.values():
        kind.top.mkdir()
        with Watch(kind.top) as watch:
            code, said = kind.run()
        assert code == 0, said
        kind.points, kind.result = watch.points, result(kind.top)
    yield made
    torch.set_num_threads(threads)
    evaluation.latency = latency


def against(teacher: Teacher, student_class: type, words: Path, paragraphs: list[str]) -> Callable[[Path], int]:
    "A run with a generator that learns, and that a limit of answers ends before its last step."
    rows = [" ".join(p.split()[:12]) for p in paragraphs]
    student = student_class.create(teacher, shape=Shape(300, 8, 16, 1, 1, 1, 16), init="random", corpus=rows, max_length=24)

    def go(folder: Path) -> int:
        stage2 = Stage2(
            MaskedLMGenerator.load(words), start=0.2, ramp=0, student_steps=2, rows=4, generator_steps=1, learn_rows=4, max_queries=26
        )
        try:
            Distiller(
                teacher,
                copy.copy(student),
                rows,
                folder / "out",
                adversary=stage2,
                resume=True,
                steps=9,
                batch_size=16,
                evaluate_every=2,
                lr=1e-2,
                held_out=8,
            ).fit()
        except ZskdError as e:  # as the command line does
            print(e, file=sys.stderr)
            return 2 if isinstance(e, UserError) else 1
        return 0

    return go


# ---- results


def without(data: object, *names: str) -> object:
    "JSON without what measures time, and without checksums over it."
    if isinstance(data, dict):
        return {k: without(v, *names) for k, v in data.items() if k not in names}
    return [without(v, *names) for v in data] if isinstance(data, list) else data


def result(top: Path) -> dict[str, object]:
    "What a run has made, by file. Of the log and the files that hold times only the names count."
    made: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_dir() or path.name in ("log.jsonl", "checkpoint.json", "report.html", "state.json", "dataset_info.json"):
            made[name] = None
        elif path.name in ("zskd.json", "report.json", "pool.json", "teacher.json"):
            made[name] = without(json.loads(path.read_text(encoding="utf-8")), "seconds", "sha256", "latency_ms", "latency", "files")
        else:
            made[name] = file_digest(path)
    return made


def torn(before: State, after: State, operation: str) -> Iterator[tuple[str, State]]:
    "The state after an operation, with each file that it wrote cut short. What is renamed is whole."
    if operation.startswith("os."):
        return
    for name, content in after.items():
        old = before.get(name) or b""
        if content and content != old:
            kept = len(old) if content.startswith(old) else 0
            cut = kept + (len(content) - kept) // 2
            odd = next((i for i in range(cut, len(content)) if content[i] & 0xC0 == 0x80), cut)  # within a character, if there is one
            yield f"{operation}, {name} cut short", {**after, name: content[:odd]}


def all_points(kinds: dict[str, Kind]) -> list[tuple[str, str, State]]:
    "Kind, operation and state of every point at which a run can be killed."
    found = []
    for name, kind in kinds.items():
        last = None
        for i, (operation, state) in enumerate(kind.points):
            if state != last:
                found.append((name, f"before {i}: {operation}", state))
            last = state
            if i + 1 < len(kind.points):
                found += [(name, f"at {i}: {what}", cut) for what, cut in torn(state, kind.points[i + 1][1], operation)]
    return found


def wrong(kind: Kind, state: State) -> str:
    "What is wrong with a run that is resumed from a state; empty if nothing is."
    put(kind.top, state)
    try:
        code, said = kind.run()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if kind.may_refuse and code == 2 and said.count("\n") == 1 and kind.may_refuse in said:
        return ""
    if code or "missing or damaged" in said:
        return f"exit code {code}: {said}"
    now = result(kind.top)
    return "; ".join(f"{name} differs" for name in sorted(now.keys() | kind.result.keys()) if now.get(name, 0) != kind.result.get(name, 0))


def test_a_run_resumes_from_wherever_it_was_killed(kinds, request):
    points = all_points(kinds)
    seed = int(os.environ.get("ZSKD_CRASH_SEED", random.SystemRandom().randrange(10_000)))
    everything = "slow" in request.config.getoption("--flags").split()
    chosen = points if everything else random.Random(seed).sample(points, SOME)
    print(f"{len(chosen)} of {len(points)} points, ZSKD_CRASH_SEED={seed}")
    failed = []
    for name, where, state in chosen:
        if problem := wrong(kinds[name], state):
            failed.append(f"{name} {where}: {problem}")
            print(failed[-1], flush=True)
    assert not failed, f"{len(failed)} of {len(chosen)} points, ZSKD_CRASH_SEED={seed}:\n" + "\n".join(failed)


@contextlib.contextmanager
def written_elsewhere(place: Path, adjacent: bool) -> Iterator[None]:
    "A place whose lock another thread holds."
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with writing(place, adjacent):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", ["distill", "adversary", "pretrain", "pool", "write", "teacher", "demo"])
def test_a_second_start_ends_in_one_line(kinds, name):
    kind = kinds[name] if name != "demo" else Kind(kinds["pool"].top, lambda folder: cli.main(["demo", "--out", str(folder / "out")]))
    put(kind.top, {})
    place = kind.top / ("out.jsonl" if name == "write" else "out")
    with written_elsewhere(place, adjacent=name in ("pool", "write")):
        code, said = kind.run()
        assert [p.name for p in kind.top.rglob("*") if p != place] == [f".{place.name}{LOCK}" if name in ("pool", "write") else LOCK]
    assert code == 2 and said.count("\n") == 1 and f"{place}: is being written by process {os.getpid()} on host " in said
    assert not list(kind.top.rglob("*"))


def test_the_points_are_those_of_every_kind(kinds):
    points = all_points(kinds)
    counts = {name: sum(p[0] == name for p in points) for name in kinds}
    assert min(counts.values()) > 10 and sum(counts.values()) > 300, counts
    for name, file in {
        "distill": "report.json",
        "adversary": "generated.jsonl",
        "pretrain": "encoder",
        "pool": "pool.json",
        "write": "out.jsonl",
        "teacher": "teacher.json",
    }.items():
        assert any(file in where for kind, where, _ in points if kind == name), (name, file)
    assert any("cut short" in where and "generated.jsonl" in where for _, where, _ in points)
