"""The command line as people meet it: whole processes, exit codes, one line for each mistake, a full disk, Ctrl-C."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from models import make_teacher
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification

from zskd import cli, commands, demo, folders, teachers
from zskd.core import ASSETS, sealed
from zskd.errors import RunError
from zskd.options import COMMANDS, read_words
from zskd.pools import Pool
from zskd.teachers import BLOCK

ZSKD = str(Path(sys.executable).parent / "zskd")
SMALL = ["--rows", "300", "--steps", "6", "--batch-size", "32", "--preset", "bert-tiny", "--init", "random"]


def one_line(err, *parts):
    "The error is one line without a traceback, and names these things. The teacher of these tests may give one class only."
    err = "".join(line for line in err.splitlines(True) if not line.startswith("warning: one class has all of the pool"))
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for part in parts:
        assert str(part) in err, (part, err)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    "Teachers, good and bad, by name."
    top = tmp_path_factory.mktemp("models")
    good = make_teacher(top / "good")
    make_teacher(top / "pair", ("not_equivalent", "equivalent"), 2)
    make_teacher(top / "other-names", ("bad", "good"))
    make_teacher(top / "silent", ("different", "same"), None)
    make_teacher(top / "unnamed", ("LABEL_0", "LABEL_1"))
    for name in ("no-weights", "pickle", "half", "cut", "nan", "no-config", "no-tokenizer"):
        shutil.copytree(good, top / name)
    (top / "no-weights" / "model.safetensors").unlink()
    for file in (top / "no-tokenizer").glob("*token*"):
        file.unlink()
    (top / "pickle" / "model.safetensors").rename(top / "pickle" / "pytorch_model.bin")
    weights = top / "half" / "model.safetensors"
    weights.rename(top / "half" / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (top / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    cut = top / "cut" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    model = BertForSequenceClassification.from_pretrained(good)
    model.classifier.bias.data.fill_(float("nan"))
    model.save_pretrained(top / "nan")
    (top / "no-config" / "config.json").unlink()
    return top


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    "Text files, good and bad."
    top = tmp_path_factory.mktemp("texts")
    (top / "empty.txt").write_text("\n \n")
    (top / "binary.txt").write_bytes(b"\x00\x01\x02" * 100)
    (top / "latin.txt").write_bytes("A first line.\nThe café is closed.\n".encode("latin-1"))
    (top / "little.txt").write_text(
        "One sentence of more than eight words is here. Another sentence, not much longer than that, is over there.\n"
    )
    (top / "rows.jsonl").write_text('{"body": "A sentence of some words."}\n')
    (top / "nothing").mkdir()
    return top


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    "The folder of a finished run, and the words that made it."
    out = tmp_path_factory.mktemp("runs") / "finished"
    words = ["distill", "--teacher", models / "good", "--task", "sst2", *SMALL, "--out", out]
    assert cli.main([str(w) for w in words]) == 0
    return out, words


# ---- as processes


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_an_example(run, name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "") and "example" in out and f"  zskd {name}" in out


def test_the_script_that_is_installed(tmp_path):
    "The only test that pays for the imports of a new interpreter; the others fork their processes."
    done = subprocess.run(
        [ZSKD, "distill", "--teacher", tmp_path / "nowhere", "--out", tmp_path / "run"], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout) == (2, "")
    one_line(done.stderr, "zskd distill:", "nowhere", "no such folder")


def test_top(run):
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run("--version")[1].startswith("zskd 0.")
    assert run()[0] == 2
    code, _, err = run("distil")
    assert code == 2
    one_line(err, "there is no command 'distil'; use one of teacher, pool, label, audit, distill", "--help")
    code, _, err = run("pool", "--rows", "many", "--out", "x")
    assert code == 2
    one_line(err, "--rows", "many", "zskd pool --help")


def test_mistake_as_a_process(run, tmp_path):
    words = ["distill", "--teacher", tmp_path / "nowhere", "--out", tmp_path / "run"]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    one_line(err, "zskd distill:", "nowhere", "no such folder")
    code, _, err = run(*words, env={"ZSKD_DEBUG": "1"})
    assert code == 2 and "Traceback" in err


def test_full_disk_as_a_process(call, run, tmp_path, models):
    "No file may grow past a limit, which a process sees as it sees a full disk."
    words = ["distill", "--teacher", models / "good", "--task", "sst2", *SMALL, "--out", tmp_path / "run"]
    code, _, err = run(*words, limit=300_000)  # enough for the pool, not for the student
    assert code == 1
    one_line(err, "zskd distill:", tmp_path / "run", "space")
    assert not list(tmp_path.rglob("*.tmp"))
    code, _, err = call(*words, "--resume")  # with space again, it goes on
    assert code == 0, err
    code, _, err = run("pool", "--task", "sst2", "--rows", 300, "--out", tmp_path / "pool", limit=5_000)
    assert code == 1 and not (tmp_path / "pool").exists()
    one_line(err, "pool", "space")
    assert call("pool", "--task", "sst2", "--rows", 300, "--out", tmp_path / "pool")[0] == 0
    code, _, err = run("label", "--teacher", models / "good", "--pool", tmp_path / "pool", limit=1_000)
    assert code == 1 and not list((tmp_path / "logits").iterdir())
    one_line(err, tmp_path / "logits", "space")
    score = ["evaluate", "--teacher", models / "good", "--task", "sst2", "--data", "demo", "--student", tmp_path / "run" / "student"]
    code, _, err = run(*score, "--limit", 20, "--out", tmp_path / "scores", limit=1_000)
    assert code == 1 and not list((tmp_path / "scores").glob("*"))
    one_line(err, tmp_path / "scores", "space")


def test_labelling_is_killed_and_goes_on(call, start, models, tmp_path):
    pool, logits = tmp_path / "pool", tmp_path / "logits"
    assert call("pool", "--task", "sst2", "--rows", BLOCK + 1500, "--out", pool)[0] == 0
    words = ["label", "--teacher", models / "good", "--task", "sst2", "--pool", pool]
    process = start(*words)
    until = time.monotonic() + 300
    while not list(logits.glob("*.safetensors")) and process.returncode is None and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(list(logits.glob("*.safetensors"))) == 1
    code, out, err = call(*words)
    assert code == 0, err
    assert f"{BLOCK + 1500:,} rows, 1,500 of them answered now" in out


def test_interrupt_and_resume_as_a_process(call, start, tmp_path, models):
    out = tmp_path / "run"
    words = ["distill", "--teacher", models / "good", "--task", "sst2", *SMALL, "--out", out]
    words[words.index("--steps") + 1] = "200"
    process = start(*words)
    until = time.monotonic() + 300
    log = out / "log.jsonl"
    while not (log.exists() and '"event": "step"' in log.read_text()) and process.returncode is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(300)
    assert process.returncode == 1
    one_line(err, "interrupted", "zskd distill", "--resume", str(out))
    assert (out / "checkpoints" / "checkpoint.json").exists()
    saved = json.loads((out / "checkpoints" / "checkpoint.json").read_text())["step"]
    assert 0 < saved < 200
    assert f"interrupted at step {saved} of 200; continue with: " in err
    code, printed, err = call(*shlex.split(err.split("continue with: zskd ")[1]))  # the command that it told
    assert code == 0, err
    assert "of 200" in printed and (out / "student" / "model.safetensors").exists()


# ---- mistakes, in this process


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [
        ("nowhere", ["nowhere", "no such folder"]),
        ("no-config", ["no-config", "config.json"]),
        ("no-weights", ["no-weights", "no weights"]),
        ("no-tokenizer", ["no-tokenizer", "has no tokenizer"]),
        ("pickle", ["pickle", "safetensors"]),
        ("half", ["half downloaded", "model-00002-of-00002.safetensors"]),
        ("cut", ["cut", "download"]),
        ("nan", ["NaN"]),
        ("pair", ["task sst2 has 1 text(s)", "reads 2"]),
        ("other-names", ["negative, positive", "bad, good"]),
        ("unnamed", ["LABEL_0, LABEL_1", "--allow-unnamed"]),
    ],
)
def test_bad_teacher(call, models, tmp_path, teacher, parts):
    code, _, err = call("distill", "--teacher", models / teacher, "--task", "sst2", *SMALL, "--out", tmp_path / "run")
    assert code == 2
    one_line(err, *parts)
    assert not (tmp_path / "run" / "student").exists()


def test_bad_task(call, models, tmp_path):
    code, _, err = call("distill", "--teacher", models / "good", "--task", "sst3", "--out", tmp_path / "run")
    assert code == 2
    one_line(err, "sst3", "sst2, mnli")
    code, _, err = call("distill", "--teacher", models / "good", "--task", "mrpc", "--out", tmp_path / "run")
    assert code == 2
    one_line(err, "mrpc", "2 text(s)")
    code, _, err = call("distill", "--teacher", models / "good", "--n-texts", 2, "--out", tmp_path / "run")
    assert code == 2
    one_line(err, "texts")
    assert not (tmp_path / "run").exists()


def test_classes_in_another_order(call, models, tmp_path):
    "A teacher's classes are taken by name: the same weights with exchanged names give exchanged answers everywhere."
    shutil.copytree(models / "good", tmp_path / "swapped")
    config = json.loads((tmp_path / "swapped" / "config.json").read_text())
    config |= {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    (tmp_path / "swapped" / "config.json").write_text(json.dumps(config))
    pool = tmp_path / "pool"
    assert call("pool", "--task", "sst2", "--rows", 300, "--out", pool)[0] == 0
    shares, scores = {}, {}
    for name in (models / "good", tmp_path / "swapped"):
        code, out, err = call("label", "--teacher", name, "--task", "sst2", "--pool", pool)
        assert code == 0, err
        shares[name.name] = dict(part.rsplit(" ", 1) for part in out.split("answers: ")[1].split("\n")[0].split(", "))
        run = tmp_path / f"run-{name.name}"
        code, out, err = call("distill", "--teacher", name, "--task", "sst2", "--pool", pool, *SMALL[2:], "--out", run)
        assert code == 0, err
        assert json.loads((run / "student" / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
        code, out, err = call("evaluate", "--teacher", name, "--task", "sst2", "--student", run / "student", "--data", "demo", "--out", run)
        assert code == 0, err
        scores[name.name] = json.loads((run / "report.json").read_text())["teacher"]["score"]
    assert shares["good"]["negative"] == shares["swapped"]["positive"] and shares["good"]["positive"] == shares["swapped"]["negative"]
    assert scores["good"] == pytest.approx(1 - scores["swapped"])
    assert len(list((tmp_path / "logits").iterdir())) == 2  # each was asked once; distill found the answers of label


def test_unnamed_labels_are_accepted_on_request(call, models, tmp_path):
    out = tmp_path / "run"
    code, _, err = call("distill", "--teacher", models / "unnamed", "--task", "sst2", "--allow-unnamed", *SMALL, "--out", out)
    assert code == 0, err
    assert json.loads((out / "student" / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}


@pytest.mark.parametrize(
    ("name", "code", "parts"),
    [
        ("empty.txt", 2, ["empty.txt", "empty"]),
        ("binary.txt", 2, ["binary.txt", "binary"]),
        ("latin.txt", 2, ["latin.txt", "UTF-8", "offset 21"]),
        ("little.txt", 2, ["little.txt", "too small", "--rows "]),
        ("missing.txt", 2, ["missing.txt", "no such file"]),
        ("rows.jsonl", 2, ["rows.jsonl", "'text'", "'body'"]),
        ("nothing", 2, ["nothing", "no text files"]),
    ],
)
def test_bad_corpus(call, texts, tmp_path, name, code, parts):
    # word edits of two sentences cannot make so many pairs
    got, _, err = call("pool", "--task", "mrpc", "--corpus", texts / name, "--rows", 20_000, "--out", tmp_path / "pool")
    assert got == code
    one_line(err, *parts)
    assert not (tmp_path / "pool").exists()


def test_a_size_that_is_no_number(call, models, tmp_path):
    small = [w for w in SMALL if w not in ("--preset", "bert-tiny")]
    for ratio in ("nan", "inf"):
        code, _, err = call("distill", "--teacher", models / "good", *small, "--ratio", ratio, "--out", tmp_path / "run")
        assert code == 2
        one_line(err, f"--ratio {ratio}", "at least 1")


def test_hub_out_of_reach(call, models, tmp_path):
    code, _, err = call("distill", "--teacher", "nobody/no-such-model", "--out", tmp_path / "run")
    assert code == 1
    one_line(err, "nobody/no-such-model", "local")
    code, _, err = call("pool", "--task", "sst2", "--corpus", "nobody/no-such-text", "--out", tmp_path / "pool")
    assert code == 1
    one_line(err, "nobody/no-such-text", "'sample'")
    code, _, err = call("evaluate", "--teacher", models / "good", "--student", models / "other-names", "--task", "sst2")
    assert code == 1
    one_line(err, "as data or in the environment variable ZSKD_DATA")
    small = [w for w in SMALL if w not in ("--preset", "bert-tiny", "--init", "random")]
    code, _, err = call("distill", "--teacher", models / "good", *small, "--init", "nobody/no-such-start", "--out", tmp_path / "init")
    assert code == 1
    one_line(err, "nobody/no-such-start", "local folder")
    code, _, err = call("teacher", "--task", "sst2", "--base", "nobody/no-such-base", "--data", tmp_path, "--out", tmp_path / "teacher")
    assert code == 1
    one_line(err, "nobody/no-such-base", "local folder")


def test_bad_options(call, models, tmp_path):
    base = ["distill", "--teacher", models / "good", "--task", "sst2", *SMALL, "--out"]
    for i, (more, parts) in enumerate(
        [
            (["--batch-size", 5000], ["--batch-size 5000"]),
            (["--loss", "kll"], ["kll"]),
            (["--ratio", 30], ["ratio", "preset"]),
            (["--preset", "bert-huge"], ["bert-huge", "bert-tiny"]),
            (["--kind", "news"], ["news", "wiki"]),
            (["--data", tmp_path / "no-data"], ["no-data", "--data"]),
            (["--device", "abacus"], ["abacus"]),
            (["--recipe", tmp_path / "recipe.json"], ["recipe.json"]),
            (["--columns", "text"], ["--columns", "the task sst2"]),
            (["--pool", tmp_path / "pool"], ["--rows", "--pool"]),
            (["--kind", "random", "--recipe", tmp_path / "recipe.json"], ["--kind", "--recipe"]),
            (["--epochs", "inf"], ["--epochs"]),
            (["--hidden", -1], ["--hidden -1"]),
            (["--colour", "red"], ["zskd distill", "--colour"]),
            (["--epochs", 6], ["--epochs", "--steps"]),
            (["--init", "my/start"], ["--preset bert-tiny: has no effect on the checkpoint my/start"]),
        ]
    ):
        code, _, err = call(*base, tmp_path / f"run{i}", *more)
        assert code == 2, (more, err)
        one_line(err, *parts)
    for more, parts in [
        ([], ["--task NAME", "--teacher FOLDER", "--n-texts 1"]),
        (["--task", "mrpc", "--n-texts", 2], ["--n-texts", "the task mrpc"]),
        (["--task", "mrpc", "--relation", "paraphrase"], ["--relation", "the task mrpc"]),
        (["--task", "sst2", "--n-texts", 0], ["--n-texts", "the task sst2"]),
        (["--n-texts", 3], ["--n-texts 3", "1 or 2"]),
        (["--task", "sst2", "--device", "cpu"], ["--device", "--teacher"]),
        (["--task", "sst2", "--logits", tmp_path / "logits"], ["--logits", "--teacher"]),
        (["--task", "sst2", "--allow-unnamed"], ["--allow-unnamed", "--teacher"]),
    ]:
        code, _, err = call("pool", "--rows", 300, *more, "--out", tmp_path / "pool")
        assert code == 2, (more, err)
        one_line(err, *parts)
        assert not (tmp_path / "pool").exists()
    code, _, err = call("evaluate", "--teacher", models / "good", "--student", models / "good", "--data", "demo")
    assert code == 2
    one_line(err, "--data demo", "--task sst2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distill", "--teacher", "t", "--out", "o", "--rows", "1.5"], "--rows: '1.5' is not a whole number; "),
        (["distill", "--teacher", "t", "--out", "o", "--lr", "high"], "--lr: 'high' is not a number; "),
        (["distill", "--teacher", "t", "--out", "o", "--rows"], "--rows: needs a value (write --rows=VALUE if it begins with a hyphen); "),
        (["pool", "--task", "sst2", "--rows", 3, "--oversample", 0, "--out", "o"], "--oversample 0: must be 1 or more\n"),
        (["pool", "--task", "sst2", "--rows", 3, "--out", ""], "--out: is empty; give a value\n"),
        (["pool", "--task", "sst2", "--corpus", "a.txt", "", "--out", "o"], "--corpus: is empty; give a value\n"),
        (["distill", "--teacher", "", "--out", "o"], "--teacher: is empty; give a value\n"),
        (["dashboard", ""], "RUN: is empty; give a value\n"),
        (["pool", "--n-texts", 2, "--columns", "a", "a", "--out", "o"], "--columns a a: name two different columns\n"),
        (["pool", "--n-texts", 2, "--columns", "a", "--out", "o"], "--columns a: name 2 column(s)"),
        (
            ["pool", "--task", "sst2", "--column", "body", "--out", "o"],
            "--column body: has no effect, because corpus 'sample' is plain text",
        ),
    ],
)
def test_values_in_the_words_of_a_user(call, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*words)
    assert code == 2 and not list(tmp_path.iterdir())
    assert err.startswith(f"zskd {words[0]}: {said}"), err
    one_line(err)


def test_numbers_of_a_run_in_the_words_of_a_user(call, models, tmp_path):
    for more, said in (
        (["--rows", 0], "--rows 0: a pool has at least one row"),
        (["--batch-size", 0], "--batch-size 0: must be 1 or more"),
        (["--steps", 0], "--steps 0: must be 1 or more"),
    ):
        code, _, err = call("distill", "--teacher", models / "good", *more, "--preset", "bert-tiny", "--out", tmp_path / "run")
        assert (code, err) == (2, f"zskd distill: {said}\n")
    assert read_words(["pool", "--out", "o", "--rows", "1e5"])["n"] == 100_000


def test_help_says_what_labels_are(call):
    for name, value in (("evaluate", "NAME=CLASS"), ("teacher", "CLASS")):
        assert f"--labels {value} [{value} ...]" in call(name, "--help")[1]


@pytest.mark.parametrize(
    ("more", "rows", "parts"),
    [
        (["--task", "sst2"], "text\tlabel\na film\t1\n", ["'sentence'", "text, label"]),
        (["--task", "sst2"], "sentence\tlabel\na film\t7\n", ["line 2", "'7'"]),
        (["--columns", "review"], "text\tlabel\na film\t1\n", ["'review'", "its columns are text, label"]),
        (["--columns", "text"], "text\tlabel\na film\tsplendid\n", ["line 2", "'splendid'"]),
    ],
)
def test_data_is_opened_before_anything_is_made(call, models, tmp_path, monkeypatch, more, rows, parts):
    data = tmp_path / "data.tsv"
    data.write_text(rows)
    words = ["distill", "--teacher", models / "good", *more, *SMALL, "--out", tmp_path / "run"]
    code, _, err = call(*words, "--data", data)
    assert code == 2
    one_line(err, data, *parts)
    monkeypatch.setenv("ZSKD_DATA", str(data))
    code, _, err = call(*words)
    assert code == 2
    one_line(err, data, *parts)
    assert not (tmp_path / "run").exists()


def test_demo_opens_its_data_first(call, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "POOL", {**demo.POOL, "n": 400})
    monkeypatch.setattr(demo, "STAGE_1", {**demo.STAGE_1, "epochs": 1, "batch_size": 64})
    monkeypatch.setattr(demo, "STAGE_2", {**demo.STAGE_2, "steps": 8, "batch_size": 16})
    folder = tmp_path / "data" / "SST-2"
    folder.mkdir(parents=True)
    (folder / "dev.tsv").write_text("text\tlabel\na film\t1\n")
    code, out, err = call("demo", "--data", folder.parent, "--out", tmp_path / "demo")
    assert (code, out) == (2, "")
    one_line(err, "dev.tsv", "'sentence'")
    assert not (tmp_path / "demo").exists()


# ---- what nobody said


def test_assumed_number_of_texts_is_told(call, models, tmp_path):
    "A model of the hub does not say whether it reads pairs, so what is assumed is printed, and how to change it."
    silent = ["--teacher", models / "silent"]
    assumed = "silent: its config.json does not say how many texts it reads at once; single texts are assumed (--n-texts 2 for pairs)\n"
    code, out, err = call("pool", *silent, "--rows", 300, "--out", tmp_path / "one" / "pool")
    assert code == 0 and out.count(assumed) == 1, err
    code, out, err = call("distill", *silent, *SMALL, "--out", tmp_path / "run")
    assert code == 0 and out.count(assumed) == 1, err
    assert "score it with: zskd evaluate" in out and " --n-texts 1 " in out.split("score it with")[1]
    code, out, err = call("pool", *silent, "--relation", "paraphrase", "--rows", 300, "--out", tmp_path / "two" / "pool")
    assert code == 0 and "are assumed" not in out, err
    for words in (["label", *silent], ["distill", *silent, *SMALL[2:], "--out", tmp_path / "pairs"]):
        code, out, err = call(*words, "--pool", tmp_path / "two" / "pool")
        assert code == 0 and out.count("pairs of texts are assumed, as in the pool (--n-texts 1 for single texts)") == 1, err
    code, out, err = call("label", *silent, "--n-texts", 2, "--pool", tmp_path / "two" / "pool")
    assert code == 0 and "are assumed" not in out, err
    code, out, err = call("label", *silent, "--n-texts", 2, "--pool", tmp_path / "one" / "pool")
    assert code == 2
    one_line(err, tmp_path / "one" / "pool", "rows of 1 text(s)", "--pool")


def test_a_pool_without_teacher_and_task(call, models, tmp_path):
    for n in (1, 2):
        folder = tmp_path / f"texts{n}" / "pool"
        code, out, err = call("pool", "--n-texts", n, "--rows", 300, "--out", folder)
        assert code == 0 and "300 rows" in out, err
        made = Pool.load(folder)
        assert (made.n_texts, made.labels) == (n, ())
    run = tmp_path / "run"
    code, out, err = call("distill", "--teacher", models / "good", "--pool", tmp_path / "texts1" / "pool", *SMALL[2:], "--out", run)
    assert code == 0, err
    code, _, err = call("label", "--teacher", models / "pair", "--pool", tmp_path / "texts2" / "pool")
    assert code == 0, err
    code, _, err = call("label", "--teacher", models / "good", "--pool", tmp_path / "texts2" / "pool")
    assert code == 2
    one_line(err, tmp_path / "texts2" / "pool", "rows of 2 text(s)")


def test_a_small_pool_gets_small_batches(call, models, tmp_path):
    small = [w for w in SMALL if w not in ("--batch-size", "32")]
    code, _, err = call("distill", "--teacher", models / "good", "--task", "sst2", *small, "--out", tmp_path / "run")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 32


def test_interrupt_while_the_teacher_answers(call, models, tmp_path, monkeypatch):
    "Ctrl-C after the second block of answers, wherever they are given: the line tells how many there are, and how to go on."
    assert call("pool", "--task", "sst2", "--rows", 300, "--out", tmp_path / "pool")[0] == 0
    write, blocks = teachers.write_shard, []

    def write_and_stop(path, logits):
        write(path, logits)
        blocks.append(path)
        if len(blocks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "BLOCK", 100)
    monkeypatch.setattr(teachers, "write_shard", write_and_stop)
    good = ["--teacher", models / "good", "--task", "sst2"]
    for i, (words, how) in enumerate(
        [
            (["label", *good, "--pool", tmp_path / "pool", "--logits", tmp_path / "label-logits"], "the same command again"),
            (["pool", *good, "--rows", 300, "--out", tmp_path / "balanced" / "pool"], "the same command again"),
            (["distill", *good, *SMALL, "--out", tmp_path / "run"], "--resume"),
            (["distill", *good, *SMALL[2:], "--pool", tmp_path / "pool", "--out", tmp_path / "other"], "--resume"),
        ]
    ):
        blocks.clear()
        code, _, err = call(*words)
        assert code == 1, (i, err)
        one_line(err, "interrupted (200 new answers of the teacher are stored); continue with: ", how)
    code, out, err = call("label", *good, "--pool", tmp_path / "pool", "--logits", tmp_path / "label-logits")
    assert code == 0 and "300 rows, 100 of them answered now" in out, err


@pytest.mark.parametrize("words", [["distill", "--teacher"], ["pretrain", "--encoder"]])
def test_interrupt_before_there_is_a_folder(call, models, tmp_path, monkeypatch, words):
    "What holds nothing cannot be resumed, so the line does not say so."

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "check_data" if words[0] == "distill" else "check_out", stop)
    code, _, err = call(*words, models / "good", "--out", tmp_path / "run")
    assert (code, err) == (1, f"zskd {words[0]}: interrupted; nothing is kept; run the same command again\n")
    assert not (tmp_path / "run").exists()


# ---- one folder, one run


def test_a_mistake_does_not_take_the_folder(call, models, tmp_path):
    words = ["distill", "--teacher", models / "good", *SMALL, "--out", tmp_path / "run"]
    code, _, err = call(*words, "--corpus", tmp_path / "mistyped.txt", "--params", 10)
    assert code == 2, err
    one_line(err, "mistyped.txt")  # before the size, which could be right for another teacher
    code, _, err = call(*words, "--adversary", "infill", "--batch-size", 1)
    assert code == 2, err
    one_line(err, "--batch-size 1: the adversary's share of 0.25 is less than one row of a batch; choose a larger batch")
    assert not (tmp_path / "run").exists()
    code, _, err = call(*words)
    assert code == 0, err


def test_a_folder_holds_one_run(call, finished, models):
    out, words = finished
    before = (out / "student" / "model.safetensors").read_bytes()
    code, _, err = call(*words)
    assert code == 2
    one_line(err, out, "--resume")
    code, _, err = call(*words, "--resume", "--lr", 0.01)
    assert code == 2
    one_line(err, out, "other options (0.003)", "--lr 0.01")
    other = [models / "unnamed" if w == models / "good" else w for w in words]
    code, _, err = call(*other, "--allow-unnamed", "--resume")
    assert code == 2
    one_line(err, out, "other options")
    assert call(*words, "--resume")[0] == 0
    assert (out / "student" / "model.safetensors").read_bytes() == before
    code, _, err = call("pool", "--task", "sst2", "--out", out)
    assert code == 2
    one_line(err, out, "holds other files")
    code, _, err = call("demo", "--out", out)
    assert code == 2
    one_line(err, f"{out}: holds what `zskd distill` made, not `zskd demo`; choose another folder")
    code, _, err = call(*words[:-1], models / "pair")
    assert code == 2
    one_line(err, models / "pair", "holds other files")
    table = models.parent / "one.tsv"
    table.write_text("text\tlabel\na film\tpositive\n")
    code, _, err = call("evaluate", "--teacher", models / "good", "--student", out / "student", "--data", table, "--split", "train")
    assert code == 2
    one_line(err, "--split train: has no effect where the data is one file")
    code, _, err = call("evaluate", "--teacher", models / "good", "--student", out, "--task", "sst2", "--data", "demo")
    assert code == 2
    one_line(err, f"{out}/student")


def test_all_differences_of_a_run_are_named(call, finished):
    out, words = finished
    code, _, err = call(*words, "--resume", "--lr", 0.01, "--seed", 4, "--loss", "kl", "--schedule", "linear")
    assert code == 2
    one_line(
        err,
        "--loss kl, --lr 0.01, --schedule linear, --seed 4: ",
        "other options (auto, 0.003, cosine, 0)",
    )
    many = ["--vocab-size", 500, "--kind", "random", "--held-out", 9, "--lr", 0.01, "--seed", 4, "--loss", "kl"]
    code, _, err = call(*words, "--resume", *many)
    assert code == 2
    one_line(err, "--held-out 9", "--kind random", "--vocab-size 500", "no value")


def test_a_run_that_has_lost_a_file(call, finished, models, tmp_path):
    "Each file that is missing is named, with the way out; what does not need it goes on."
    out, words = tmp_path / "run", [tmp_path / "run" if w == finished[0] else w for w in finished[1]]
    shutil.copytree(finished[0], out)
    pages = ["dashboard", out, "--pages", tmp_path / "pages", "--most", 20]
    score = ["evaluate", "--teacher", models / "good", "--student", out / "student", "--task", "sst2", "--data", "demo", "--limit", 20]
    (out / "pool" / "pool.json").unlink()
    code, _, err = call(*words, "--resume")
    assert code == 2
    one_line(err, f"{out}/pool/pool.json: is missing; put that file back, or delete the folder {out}/pool and make the same pool again")
    code, _, err = call(*pages)
    assert code == 0 and (tmp_path / "pages" / "monitor.html").exists()
    one_line(err, "warning: ", f"{out}/pool/pool.json: is missing", "restore that file")
    shutil.rmtree(out / "pool")  # as it was told
    (out / "log.jsonl").unlink()
    code, _, err = call(*words, "--resume")
    assert code == 0 and (out / "pool" / "pool.json").exists()
    one_line(err, "warning: ", f"{out}/log.jsonl: is missing")
    code, _, err = call(*pages)
    assert code == 0
    one_line(err, "warning: ", f"{out}/log.jsonl: is missing", "restore that file")
    assert call(*score)[0] == 0


def test_a_student_is_not_compared_with_itself(call, finished, tmp_path):
    student = finished[0] / "student"
    shutil.copytree(student, tmp_path / "copy")
    for teacher in (student, tmp_path / "copy"):
        code, _, err = call("evaluate", "--teacher", teacher, "--student", student, "--task", "sst2", "--data", "demo")
        assert code == 2
        one_line(err, f"--teacher {teacher}: is the same model as the student {student}")


def test_what_a_run_says_at_its_end(call, finished):
    out, words = finished
    code, said, _ = call(*words, "--resume")
    best = json.loads((out / "student" / "zskd.json").read_text())["notes"]
    line = f"agrees with the teacher on {best['best_agreement']:.1%} of 15 held-out rows of the pool (KL {best['best_kl']:.3f} nats)"
    assert code == 0 and line in said, said
    assert (
        "No --data was given, so the student has no score on real examples yet; "
        f"score it with: zskd evaluate --student {out}/student --teacher "
        f"{words[2]} --task sst2" in said
    )


def test_damaged_logits_are_noticed(call, models, tmp_path):
    pool = tmp_path / "pool"
    assert call("pool", "--task", "sst2", "--rows", 200, "--out", pool)[0] == 0
    assert call("label", "--teacher", models / "good", "--pool", pool)[0] == 0
    (shard,) = (tmp_path / "logits").iterdir()
    good = shard.read_bytes()
    for bad in (good[:-100], good[:-1] + bytes([good[-1] ^ 1])):
        shard.write_bytes(bad)
        code, _, err = call("label", "--teacher", models / "good", "--pool", pool)
        assert code == 1
        one_line(err, shard, "delete")
    shard.unlink()
    code, out, _ = call("label", "--teacher", models / "good", "--pool", pool)
    assert code == 0 and "200 of them answered now" in out


def test_the_parts_make_the_whole(call, models, tmp_path):
    pool = tmp_path / "pool"
    code, out, _ = call("pool", "--task", "sst2", "--teacher", models / "good", "--rows", 300, "--out", pool)
    assert code == 0 and "sentence" in out
    code, out, _ = call("label", "--teacher", models / "good", "--pool", pool)
    assert code == 0 and "300 rows, 0 of them answered now" in out  # balancing had asked already
    code, _, err = call("distill", "--teacher", models / "pair", "--task", "mrpc", "--pool", pool, *SMALL[2:], "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()  # a pool of single texts is no use to it
    one_line(err, pool, "rows of 1 text(s)")
    code, _, err = call("pool", "--task", "sst2", "--recipe", pool / "pool.json", "--rows", 300, "--out", tmp_path / "same-recipe")
    assert code == 0, err
    code, _, err = call("distill", "--teacher", models / "good", "--task", "sst2", "--pool", pool, *SMALL[2:], "--out", tmp_path / "run")
    assert code == 0, err
    out = tmp_path / "scores"
    words = ["evaluate", "--teacher", models / "good", "--task", "sst2", "--student", tmp_path / "run" / "student", "--data", "demo"]
    code, text, err = call(*words, "--limit", 50, "--out", out)
    assert code == 0 and "accuracy" in text, err
    report = json.loads((out / "report.json").read_text())
    assert (report["n"], report["seed"], report["queries"]["ood"]) == (50, 0, 450)  # the run has left word with its student
    assert report["baselines"]["undistilled"]["accuracy"] > 0 and report["sources"] == ["sample"]
    assert "<html" in (out / "report.html").read_text()


def test_a_generator_that_reads_little(call, models, tmp_path):
    "Texts are cut to what the language model reads."
    generator = tmp_path / "generator"
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "teacher")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(generator)
    tokenizer.save_pretrained(generator)
    words = ["distill", "--teacher", models / "good", *SMALL, "--adversary", "gumbel", "--generator", generator, "--out", tmp_path / "run"]
    code, _, err = call(*words)
    assert code == 0, err
    wrote = [json.loads(line) for line in (tmp_path / "run" / "generated.jsonl").read_text().splitlines()]
    assert max(len(text["text"][0].split()) for text in wrote) > 16  # what is not read stays as it is


# ---- zskd pretrain


def test_pretrain_and_start_from_it(call, models, tmp_path):
    out = tmp_path / "compact"
    words = ["pretrain", "--encoder", "demo", "--params", 150_000, "--rows", 200, "--epochs", 1, "--words", 0.1, "--out", out]
    code, text, err = call(*words)
    assert code == 0 and f"{out}/encoder" in text, err
    weights = (out / "encoder" / "model.safetensors").read_bytes()
    code, _, err = call(*words)
    assert code == 2
    one_line(err, out, "--resume")
    code, text, err = call(*words, "--resume")  # there is nothing left to do
    assert code == 0 and (out / "encoder" / "model.safetensors").read_bytes() == weights, err
    code, _, err = call(*words, "--resume", "--seed", 1)
    assert code == 2
    one_line(err, "other options", "--seed 1")
    run = [
        "distill",
        "--teacher",
        models / "good",
        "--task",
        "sst2",
        "--rows",
        300,
        "--steps",
        6,
        "--init",
        out / "encoder",
        "--out",
        tmp_path / "run",
    ]
    code, text, err = call(*run)
    assert code == 0 and "student" in text, err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--encoder", "nowhere/at/all"], ["nowhere/at/all", "no such folder"]),
        (["--encoder", "demo", "--rows", 2], ["--rows 2", "at least one row"]),
        (["--encoder", "demo", "--rows", 200, "--params", 300], ["too small"]),
        (["--encoder", "demo", "--states", 0, "--relations", 1], ["--states 0", "above 0"]),
        (["--encoder", "demo", "--sentences", 0], ["--sentences 0", "above 0"]),
        (["--encoder", "demo", "--words", -1], ["--words -1"]),
        (["--encoder", "demo", "--rows", 200, "--batch-size", 4000], ["--batch-size 4000", "only 190 of 200 rows"]),
        (["--encoder", "nowhere", "--batch-size", 0], ["--batch-size 0: must be 1 or more\n"]),
        (["--encoder", "nowhere", "--epochs", 0], ["--epochs 0: must be a number above 0"]),
        (["--encoder", "demo", "--params", 99_999_999], ["--params 99999999", "from 1 to the encoder's"]),
    ],
)
def test_bad_pretraining(call, tmp_path, words, parts):
    code, _, err = call("pretrain", *words, "--out", tmp_path / "run")
    assert code == 2
    one_line(err, *parts)


# ---- zskd teacher and zskd demo


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--epochs", "inf"], "--epochs inf"),
        (["--batch-size", 0], "--batch-size 0"),
        (["--lr", "nan"], "--lr nan"),
        (["--lr", -1], "--lr -1"),
        (["--seed", -1], "--seed -1"),
        (["--max-length", 4], "--max-length 4"),
        (["--max-length", 4000], "--max-length 4000: the model reads at most"),
        (["--extra", "validation"], "validation"),
    ],
)
def test_bad_settings_of_a_teacher(call, tmp_path, words, part):
    code, _, err = call(
        "teacher", "--task", "sst2", "--base", ASSETS / "teacher", "--data", ASSETS / "eval", *words, "--out", tmp_path / "t"
    )
    assert code == 2 and not (tmp_path / "t").exists()
    one_line(err, part)


def test_a_student_beside_the_checkpoints_of_another_run(call, finished, models, tmp_path):
    out, _ = finished
    shutil.copytree(out / "checkpoints", tmp_path / "checkpoints")
    words = ["evaluate", "--teacher", models / "good", "--task", "sst2", "--data", "demo", "--limit", 20, "--out", tmp_path / "scores"]
    shutil.copytree(models / "good", tmp_path / "student")
    code, _, err = call(*words, "--student", tmp_path / "student")
    assert code == 0, err
    assert json.loads((tmp_path / "scores" / "report.json").read_text())["baselines"]["undistilled"] is None


def test_a_student_that_was_exchanged_after_its_training(call, finished, models, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(finished[0] / "student", student)
    words = ["evaluate", "--teacher", models / "good", "--task", "sst2", "--data", "demo", "--limit", 20, "--student", student]
    assert call(*words)[::2] == (0, "")
    weights = load_file(student / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, student / "model.safetensors", metadata={"format": "pt"})
    code, _, err = call(*words)
    assert code == 0
    one_line(err, "warning: ", student / "model.safetensors", "is not the file that was saved with this student")
    shutil.copy(finished[0] / "student" / "model.safetensors", student)
    config = json.loads((student / "config.json").read_text())
    config |= {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    (student / "config.json").write_text(json.dumps(config))
    code, _, err = call(*words)
    assert code == 0
    one_line(err, "warning: ", student / "config.json", "is not the file that was saved with this student")


def test_recipes_that_cannot_be(call, tmp_path):
    for wrong in (
        '{"builders": {"sentence": Infinity}}',
        '{"builders": {"sentence": NaN}}',
        '{"builders": {"sentence": 1}, "bins": 2.5}',
        '{"builders": {"sentence": 1}, "oversample": Infinity}',
        '{"builders": {"sentence": 1}, "balance": "no"}',
    ):
        (tmp_path / "recipe.json").write_text(wrong)
        code, _, err = call("pool", "--n-texts", 1, "--recipe", tmp_path / "recipe.json", "--rows", 5, "--out", tmp_path / "pool")
        assert code == 2, wrong
        one_line(err, "recipe")


def test_teacher(call, models, tmp_path):
    data = tmp_path / "data" / "SST-2"
    data.mkdir(parents=True)
    rows = "".join(f"{'a good' if i % 2 else 'a bad'} film number {i}\t{i % 2}\n" for i in range(24))
    for name in ("train.tsv", "dev.tsv"):
        (data / name).write_text("sentence\tlabel\n" + rows)
    words = ["teacher", "--task", "sst2", "--base", models / "good", "--data", data.parent, "--epochs", 1, "--batch-size", 8]
    out = tmp_path / "teacher"
    code, text, err = call(*words, "--out", out)
    assert code == 0 and "accuracy" in text, err
    assert (out / "model.safetensors").exists() and not list(out.glob("*.bin"))
    code, _, err = call(*words, "--out", out)
    assert code == 2
    one_line(err, out, "new or empty folder")
    # the same process can go on to distil what it has just made
    code, _, err = call("distill", "--teacher", out, "--task", "sst2", *SMALL, "--out", tmp_path / "run")
    assert code == 0, err
    (data / "train.tsv").write_text("text\tlabel\na film\t1\n")
    code, _, err = call(*words, "--out", tmp_path / "other")
    assert code == 2
    one_line(err, "train.tsv", "'sentence'")


def test_write(call, models, texts, tmp_path):
    out = tmp_path / "text" / "rewritten.jsonl"
    words = ["write", "--rewrite", "sample", "--rounds", 1, "--out", out]
    code, text, err = call(*words, "--rows", 40)
    assert code == 0 and "40 texts" in text, err
    first = out.read_text()
    assert call(*words, "--rows", 20)[0] == 0 and out.read_text() == first  # there already
    assert call(*words, "--rows", 70)[0] == 0 and out.read_text().startswith(first)  # continued
    assert call("pool", "--task", "sst2", "--corpus", out, "--rows", 30, "--out", tmp_path / "pool")[0] == 0
    for more, named in (
        (["--out", out, "--rows", 40, "--rounds", 2, "--rewrite", "sample"], ["rewritten.jsonl", "choose another file"]),
        (["--out", out, "--rows", 40, "--rounds", 1, "--rewrite", "sample", "--seed", 1], ["rewritten.jsonl", "choose another file"]),
        (["--out", tmp_path, "--rows", 40, "--rewrite", "sample"], [tmp_path, "folder"]),
        (["--out", out, "--rows", 0, "--rewrite", "sample", "--rounds", 1], ["--rows 0"]),
        (["--out", out, "--rows", 4], ["--model", "--rewrite"]),
        (["--out", out, "--rows", 4, "--model", models / "good"], [models / "good"]),
        (["--out", out, "--rows", 4, "--model", ASSETS / "compact-wide"], ["causal language model"]),
        (["--out", out, "--rows", 4, "--model", models / "good", "--rewrite", "sample"], ["no head for masked words"]),
        (["--out", out, "--rows", 4, "--model", "x", "--share", 0.5], ["--share", "--rewrite"]),
        (["--out", out, "--rows", 4, "--rewrite", "sample", "--prompts", "The"], ["--prompts", "--rewrite"]),
        (["--out", out, "--rows", 4, "--rewrite", "sample", "--top-p", 0.5], ["--top-p", "--rewrite"]),
        (["--out", out, "--rows", 4, "--rewrite", texts / "empty.txt"], ["empty"]),
    ):
        code, _, err = call("write", *more)
        assert code == 2, (more, err)
        one_line(err, *named)
    assert out.read_text().startswith(first)


def test_export(call, finished, tmp_path, monkeypatch):
    student = tmp_path / "student"
    shutil.copytree(finished[0] / "student", student)
    code, out, err = call("export", student, "--out", tmp_path / "onnx", "--int8", "--rows", 20)
    assert (code, err) == (0, "") and "ONNX int8" in out and (tmp_path / "onnx" / "model_int8.onnx").exists()
    code, out, err = call("export", student, "--out", student, "--rows", 20)  # beside its weights, where it stays a student
    assert (code, err) == (0, "") and "ONNX int8" not in out
    code, out, err = call("evaluate", "--teacher", finished[1][2], "--student", student, "--task", "sst2", "--data", "demo", "--limit", 20)
    assert (code, err) == (0, "")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "zskd.export")
    code, _, err = call("export", student, "--out", tmp_path / "other")
    assert code == 2
    one_line(err, "pip install '.[onnx]' in a clone of zskd")


def test_efforts(call, models, tmp_path, monkeypatch):
    "An effort is rows and passes; both can be given instead. How long it takes is printed before the teacher is asked."
    from zskd import efforts

    monkeypatch.setitem(efforts.EFFORTS, "quick", efforts.Effort(300, 2))
    words = ["distill", "--teacher", models / "good", "--task", "sst2", "--ratio", 4, "--batch-size", 32, "--effort", "quick"]
    code, out, err = call(*words, "--out", tmp_path / "quick")
    assert code == 0 and "300 rows" in out and re.search(r"of 1[678]\)", out)
    assert re.match(r"expected on this machine: quick \d+ seconds \(this run\), standard ", out)
    code, out, err = call(*words, "--out", tmp_path / "more", "--rows", 200, "--steps", 4)
    assert code == 0 and "200 rows" in out and "of 4)" in out
    assert re.match(r"expected on this machine: with these settings \d+ seconds \(this run\), quick ", out)
    assert call(*words, "--out", tmp_path / "quick", "--resume")[0] == 0
    for more, named in (
        (["--effort", "much"], ["--effort much", "unknown"]),
        (["--pool", tmp_path / "quick" / "pool"], ["--effort quick"]),
    ):
        code, _, err = call(*words, *more, "--out", tmp_path / "new")
        assert code == 2 and not (tmp_path / "new").exists()
        one_line(err, *named)


def test_predict(call, finished, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(finished[0] / "student", student)
    texts = tmp_path / "texts.csv"
    texts.write_text("n,text\n" + "".join(f'{i},"a film, number {i}"\n' for i in range(200)) + "200,\n")
    code, plain, err = call("predict", student, "--data", texts)
    assert code == 0 and len(plain.splitlines()) == 202
    assert err.endswith("1 of 201 rows have an empty text; they are answered all the same\n") and err.count("\n") == 1
    assert call("export", student, "--out", student, "--rows", 20)[0] == 0
    code, out, err = call("predict", student, "--data", texts, "--out", tmp_path / "answers.tsv")
    assert code == 0 and "201 answers" in out and "ONNX fp32: " in err and "PyTorch: " in err
    found = [line.split("\t")[0] for line in (tmp_path / "answers.tsv").read_text().splitlines()]
    assert found == [line.split("\t")[0] for line in plain.splitlines()]
    for words, named in (
        (["--data", tmp_path / "none.csv"], ["none.csv", "cannot be read"]),
        (["--data", texts, "--columns", "body"], ["no column 'body'"]),
        (["--data", texts, "--columns", "n", "text"], ["--columns n text", "reads 1 text(s)"]),
        (["--data", texts, "--out", tmp_path / "answers.xlsx"], ["--out", "must end in"]),
        (["--data", texts, "--out", texts], ["--out", "would be lost"]),
    ):
        code, out, err = call("predict", student, *words)
        assert (code, out) == (2, ""), (words, out, err)
        one_line(err, *named)


def test_dashboard_as_pages(call, finished, models, tmp_path):
    code, out, err = call("dashboard", finished[0], "--pages", tmp_path / "pages", "--data", "demo", "--most", 30)
    assert (code, err) == (0, "")
    assert [Path(line).name for line in out.split()] == ["explorer.html", "comparison.html", "loss_explorer.html", "monitor.html"]
    other = tmp_path / "other"
    shutil.copytree(finished[0], other)
    words = ["dashboard", finished[0], "--pages", tmp_path / "pages", "--data", "demo", "--most", 30]
    code, out, err = call(*words, "--beside", other)
    assert (code, err) == (0, "") and "students.html" in out
    page = (tmp_path / "pages" / "students.html").read_text()
    assert page.count("+0.0 ± 0.0 points") == 2 and "other" in page and "one standard error" in page
    code, _, err = call(*words, "--beside", tmp_path)
    assert code == 2
    one_line(err, "holds no run")
    code, _, err = call("dashboard", tmp_path, "--pages", tmp_path / "pages")
    assert code == 2
    one_line(err, "holds no run")
    code, _, err = call("dashboard", finished[0], "--teacher", models / "no-weights", "--pages", tmp_path / "pages")
    assert code == 2
    one_line(err, "no-weights")


def test_dashboard_is_served(finished, start):
    "The page asks for its token, and Ctrl-C ends it in peace."
    served = start("dashboard", finished[0], "--no-browser", "--most", "30")
    address = next((found[0] for line in served.stdout if (found := re.search(r"http://127\S+token=\S+", line))), None)
    assert address
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address.split("?")[0], timeout=60)
    visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    page = visitor.open(address, timeout=120).read().decode()
    assert "Loading. This page" in page and "Traceback (most" not in page
    served.send_signal(signal.SIGINT)
    assert served.wait(60) == 0


def write_command(folder: Path, **options) -> None:
    "A run's folder with nothing but the options of `zskd distill`."
    kept = {"command": "distill", "options": {"task": "sst2", "corpus": ["sample"], **options}, "teacher": ""}
    (folder / "command.json").write_text(json.dumps(sealed(kept)))


@pytest.fixture
def forked(run, monkeypatch):
    "What the monitor's button starts is forked as well."

    def carry_out(command, cwd, **_):
        code, out, err = run(*command[3:], folder=cwd)
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(folders.subprocess, "run", carry_out)


def test_a_run_goes_on_from_its_dashboard(finished, tmp_path):
    "The monitor's button gives the command again that made the run, where that was given."
    run = finished[0]
    weights = (run / "student" / "model.safetensors").read_bytes()
    folders.resume_run(run, tmp_path)()
    assert (run / "student" / "model.safetensors").read_bytes() == weights
    shutil.copytree(run, tmp_path / "copy")
    assert folders.resume_run(tmp_path / "copy", tmp_path) is None and folders.resume_run(tmp_path, tmp_path) is None


def test_a_run_that_fails_from_its_dashboard(forked, tmp_path):
    write_command(tmp_path, teacher="nowhere", out=".")
    with pytest.raises(RunError, match="nowhere"):
        folders.resume_run(tmp_path, tmp_path)()


def test_two_visitors_do_not_resume_a_run_twice(tmp_path, monkeypatch):
    write_command(tmp_path, teacher="nowhere", out=".")
    go_on, running, end = folders.resume_run(tmp_path, tmp_path), threading.Event(), threading.Event()
    monkeypatch.setattr(folders.subprocess, "run", lambda *_, **__: (running.set(), end.wait(60), subprocess.CompletedProcess([], 0))[-1])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(go_on)
        assert running.wait(60)
        with pytest.raises(RunError, match="already"):
            go_on()
        end.set()
        first.result(60)


def test_a_run_that_is_stopped_from_its_dashboard_has_not_failed(forked, models, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    words = ["distill", "--teacher", models / "good", "--task", "sst2", *SMALL, "--steps", 100_000, "--out", out]
    options = read_words([str(word) for word in words])
    write_command(out, **{name: options[name] for name in COMMANDS["distill"].options()})
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(folders.resume_run(out, tmp_path))
        until = time.time() + 120
        while (
            not going.done()
            and time.time() < until
            and '"event": "step"' not in ((out / "log.jsonl").read_text() if (out / "log.jsonl").exists() else "")
        ):
            time.sleep(0.05)
        (out / "stop").touch()
        assert isinstance(going.exception(60), KeyboardInterrupt)


def test_demo_in_small(call, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "POOL", {**demo.POOL, "n": 200})
    monkeypatch.setattr(demo, "STAGE_1", {**demo.STAGE_1, "epochs": 1, "batch_size": 32})
    monkeypatch.setattr(demo, "STAGE_2", {**demo.STAGE_2, "steps": 8, "batch_size": 16})
    out = tmp_path / "demo"
    code, text, err = call("demo", "--out", out)
    assert code == 0, err
    assert [f"[{i}/6]" in text for i in range(1, 7)] == [True] * 6 and "With your own teacher" in text
    assert all(name in text for name in ("before training", "after stage 1", "after stage 2"))
    assert {"student", "report.json", "report.html", "config.json", "generated.jsonl", "stage1"} <= {p.name for p in out.iterdir()}
    report = json.loads((out / "report.json").read_text())
    assert report["compression"] >= 30
    weights = (out / "student" / "model.safetensors").read_bytes()
    code, text, _ = call("demo", "--out", out)
    assert code == 0 and "which is resumed" in text
    assert (out / "student" / "model.safetensors").read_bytes() == weights
    code, _, err = call("demo", "--out", out, "--seed", 1)
    assert code == 2
    one_line(err, out, "--seed", "--fresh")
    code, _, err = call("demo", "--out", letters(tmp_path), "--fresh")
    assert code == 2
    one_line(err, "holds no demo")


def letters(tmp_path):
    "A folder with something in it that is no demo."
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear all")
    return folder


def test_mistakes_that_would_pass_in_silence(call, finished, models, tmp_path):
    run, words = finished
    table = tmp_path / "mine.tsv"
    table.write_text("text\tlabel\na good film\tpositive\na bad film\tnegative\n")
    for command, told in (
        (
            ["evaluate", "--teacher", words[2], "--student", run / "student", "--data", table, "--columns", "label"],
            "cannot also be a text",
        ),
        (["evaluate", "--teacher", words[2], "--student", run / "student", "--data", table, "--max-length", 100_000], "reads at most"),
        (["dashboard", run, "--pages", ""], "--pages: is empty"),
        (["distill", "--teachr", words[2]], "'--teachr', perhaps --teacher"),
        (
            ["distill", "--teacher", words[2], "--task", "sst2", "--adversary", "gumbel", "--max-queries", 100, "--out", tmp_path / "run"],
            "a turn of the adversary takes",
        ),
    ):
        code, _, err = call(*command)
        assert code == 2
        one_line(err, told)
    assert not (tmp_path / "run").exists()
