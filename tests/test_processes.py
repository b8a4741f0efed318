"""One command in several processes: the tutorial's lines word for word, processes that are killed, mistakes, and torchrun's options."""

import contextlib
import gc
import io
import json
import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from zskd import cli
from zskd.core import ASSETS, RunFolder
from zskd.options import COMMANDS
from zskd.students import Student

TUTORIAL = Path(__file__).parents[1] / "nbs" / "tutorials" / "processes.ipynb"
TEACHER = ["--teacher", ASSETS / "teacher", "--task", "sst2"]
processes = multiprocessing.get_context("forkserver")  # the server of the root's conftest.py forks a clean process for each part of a run


STARTED = []


@pytest.fixture(autouse=True)
def none_is_left():
    "Nothing that a test started outlives it."
    yield
    while STARTED:
        STARTED.pop().kill()


def work(words, env, said):
    "What the console script does, with its output in a file."
    gc.freeze()  # what was imported
    os.environ.update({"TQDM_DISABLE": "1", **env})
    for number in (1, 2):
        os.dup2(os.open(f"{said}-{number}", os.O_WRONLY | os.O_CREAT), number)
    sys.exit(cli.main([str(w) for w in words]))


class Run:
    "A command in several processes that nobody watches from outside, as on several machines."

    def __init__(self, folder, *words, n=2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        env = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.said = [folder / f"said-{i}" for i in range(n)]
        self.processes = [
            processes.Process(target=work, args=(words, {**env, "RANK": str(i), "LOCAL_RANK": str(i)}, self.said[i])) for i in range(n)
        ]
        for p in self.processes:
            p.start()
            STARTED.append(p)

    def until(self, there):
        "Wait until something is there."
        end = time.monotonic() + 120
        while not there():
            assert time.monotonic() < end and all(p.is_alive() for p in self.processes), self.errors()
            time.sleep(0.05)

    def end(self, seconds=120):
        "Exit codes, once all processes have ended."
        end = time.monotonic() + seconds
        for p in self.processes:
            p.join(max(0.1, end - time.monotonic()))
        late = [i for i, p in enumerate(self.processes) if p.is_alive()]
        for i in late:
            self.processes[i].kill()
        assert not late, (late, self.errors())
        return [p.exitcode for p in self.processes]

    def errors(self):
        "What all of them printed as errors."
        return "".join(f.read_text() for f in (Path(f"{s}-2") for s in self.said) if f.exists())


def step(folder):
    log = folder / "log.jsonl"
    return log.exists() and '"event": "step"' in log.read_text()


@pytest.mark.slow
def test_the_line_of_the_tutorial(tmp_path):
    "From nothing, word for word. The tutorial runs it, too, with these checks, and finds the student of a single process."
    source = "".join("".join(c["source"]) + "\n" for c in json.loads(TUTORIAL.read_text("utf-8"))["cells"])
    (line,) = re.findall(r'^both = "(torchrun .+)"$', source, re.M)
    env = {**os.environ, "TQDM_DISABLE": "1", "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(
        shlex.split(line.replace("$TEACHER", str(ASSETS / "teacher"))), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0 and done.stdout.count("score it with") == 1, done.stderr
    out = tmp_path / line.split()[-1]
    assert [e["processes"] for e in RunFolder(out).read_log("start")] == [2]
    assert Student.load(out / "student").labels == ("negative", "positive") and not (out / ".student").exists()


@pytest.mark.parametrize(
    "phase, lost",
    [("pool", 1), ("training", 0), pytest.param("pool", 0, marks=pytest.mark.slow), pytest.param("training", 1, marks=pytest.mark.slow)],
)
def test_a_process_that_is_killed_ends_the_others_with_one_line(tmp_path, phase, lost):
    out = tmp_path / "run"
    size = (
        ["--rows", 20_000]
        if phase == "pool"
        else ["--rows", 300, "--preset", "bert-tiny", "--init", "random", "--batch-size", 32, "--steps", 4_000]
    )
    words = ["distill", *TEACHER, *size, "--out", out]
    run = Run(tmp_path, *words)
    run.until(lambda: (out / "command.json").exists() if phase == "pool" else step(out))
    os.kill(run.processes[lost].pid, signal.SIGKILL)
    codes = run.end(60)
    assert codes[lost] == -signal.SIGKILL and codes[1 - lost] == 1
    assert (
        run.errors() == f"zskd distill: process {lost} of 2 was lost; continue with: {shlex.join(map(str, ['zskd', *words, '--resume']))}\n"
    )


def test_sigterm_before_training_is_one_line(tmp_path):
    words = ["distill", *TEACHER, "--rows", 20_000, "--out", tmp_path / "run"]
    run = Run(tmp_path, *words, n=1)
    run.until((tmp_path / "run" / "command.json").exists)
    os.kill(run.processes[0].pid, signal.SIGTERM)
    assert run.end(60) == [143]
    assert re.fullmatch(
        rf"zskd distill: interrupted[^\n]*; continue with: {re.escape(shlex.join(map(str, ['zskd', *words, '--resume'])))}\n", run.errors()
    )


@pytest.mark.slow
def test_sigterm_in_training_is_one_line_and_leaves_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    words = [
        "distill",
        *TEACHER,
        "--rows",
        300,
        "--preset",
        "bert-tiny",
        "--init",
        "random",
        "--batch-size",
        32,
        "--steps",
        4_000,
        "--out",
        out,
    ]
    run = Run(tmp_path, *words)
    run.until(lambda: step(out))
    for p in run.processes:
        os.kill(p.pid, signal.SIGTERM)
    assert run.end(60) == [143, 143]
    reached = json.loads((out / "checkpoints" / "checkpoint.json").read_text())["step"]
    assert (
        reached
        and run.errors()
        == f"zskd distill: interrupted at step {reached} of 4000; continue with: {shlex.join(map(str, ['zskd', *words, '--resume']))}\n"
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (["--stepps", 5], "unknown option '--stepps', perhaps --steps"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--rows", 300, "--batch-size", 33, "--steps", 5], "cannot be shared equally by 2 processes"),
    ],
    ids=["an option", "a corpus", "a batch"],
)
def test_a_mistake_is_told_once(tmp_path, words, said):
    run = Run(tmp_path, "distill", *TEACHER, *words, "--out", tmp_path / "run")
    assert run.end(60)[0] == 2
    assert run.errors().count("\n") == 1 and said in run.errors(), run.errors()


def test_a_command_of_one_process(tmp_path):
    run = Run(tmp_path, "pool", "--task", "sst2", "--rows", 200, "--out", tmp_path / "pool")
    assert run.end() == [0, 0]
    assert run.errors() == "warning: zskd pool: runs as one process; the 1 other(s) have nothing to do\n"
    assert (tmp_path / "pool" / "pool.json").exists()


@pytest.mark.parametrize("parser", [get_args_parser(), launch_command_parser()], ids=["torchrun", "accelerate launch"])
def test_every_option_reaches_the_command(parser):
    "Starters read options of their own from the same line, some of them abbreviated; none of ours may look like one."
    for name, c in COMMANDS.items():
        flags = ["-n", "--config", "--print-config", *(option.flag for key, option in c.options().items() if key != c.by_place)]
        for words in ([name, *given] for flag in flags for given in ([flag, "5"], [f"{flag}=5"])):
            assert parser.parse_args(["-m", "zskd", *words]).training_script_args == words


def test_torchrun_takes_the_earlier_name_for_its_own(capsys):
    "Why `--n` is called `--rows`."
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["-m", "zskd", "distill", "--n", "5"])
    assert "ambiguous option: --n" in capsys.readouterr().err


def test_accelerate_says_cpu_and_starts_one_process(monkeypatch):
    for key, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(key, value)
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["--version"]) == 0
    assert "accelerate launch --cpu starts one process" in err.getvalue()
