"""A teacher behind an endpoint: asked over real HTTP, through failures of network and server, and killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from endpoint_server import PROMPT, FakeEndpoint
from scipy.special import softmax

import zskd
from zskd.core import ASSETS
from zskd.endpoints import AnswerFile, Limits
from zskd.errors import RunError, UserError
from zskd.pools import ood_pool
from zskd.preparation import count_answers
from zskd.tasks import TASKS
from zskd.teachers import Teacher

pytest.importorskip("openai")
LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def hidden() -> Teacher:
    return Teacher.load(ASSETS / "teacher", precision="fp32")


@pytest.fixture(scope="module")
def rows() -> list:
    return ood_pool(TASKS["sst2"], "sample", 160, seed=0).rows()


@pytest.fixture
def server(hidden):
    made = FakeEndpoint(hidden)
    yield made
    made.close()


def ask(server: FakeEndpoint, answers, **settings) -> Teacher:
    return Teacher.from_endpoint(server.url, PROMPT, LABELS, answers=answers, **settings)


def test_failures_of_server_and_network(server, hidden, rows, tmp_path):
    faults = {3: "429", 5: "500", 7: "cut", 9: "broken", 11: "dead"}
    server.fault, server.delay = lambda n: faults.get(n % 12), 0.01
    teacher = ask(server, tmp_path / "answers.jsonl", limits=Limits(retries=6, timeout=5))
    found = softmax(teacher.logits(rows), axis=1)
    np.testing.assert_allclose(found, softmax(hidden.logits(rows), axis=1), atol=1e-4)
    assert len(server.requests) > 1.4 * len(rows)
    assert set(server.delivered.values()) == {1} and len(server.delivered) == len(rows)
    assert teacher.usage.questions == teacher.queries == len(AnswerFile(tmp_path / "answers.jsonl")) == len(rows)


def test_a_dead_endpoint_loses_nothing(server, rows, tmp_path):
    file = tmp_path / "answers.jsonl"
    server.fault = lambda n: "dead" if n > 60 else None
    with pytest.raises(RunError, match=r"answers that have arrived are kept in .*answers.jsonl, and the next attempt continues"):
        ask(server, file, limits=Limits(retries=0)).logits(rows)
    kept = len(AnswerFile(file))
    assert kept == sum(server.delivered.values()) == 60
    server.fault = lambda n: None
    again = ask(server, file)
    again.logits(rows)
    assert (again.usage.kept, again.usage.questions) == (60, len(rows) - 60)
    assert set(server.delivered.values()) == {1}


def test_a_killed_process_loses_what_was_on_its_way(server, rows, tmp_path):
    server.delay = 0.05
    file, script = tmp_path / "answers.jsonl", tmp_path / "ask.py"
    script.write_text(
        f"from zskd.teachers import Teacher\nfrom zskd.pools import ood_pool\nfrom zskd.tasks import TASKS\n"
        f"rows = ood_pool(TASKS['sst2'], 'sample', 160, seed=0).rows()\n"
        f"Teacher.from_endpoint({server.url!r}, {PROMPT!r}, {LABELS!r}, answers={str(file)!r}).logits(rows)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    while sum(server.delivered.values()) < 40 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # what was on its way
    before = len(AnswerFile(file))
    assert before >= 30
    ask(server, file).logits(rows)
    twice = [question for question, n in server.delivered.items() if n > 1]
    assert len(server.delivered) == len(rows) and len(twice) <= Limits().at_once


def test_a_student_of_an_endpoint(server, hidden, tmp_path):
    "The whole way, and once more: the second run asks nothing."
    settings = {"task": "sst2", "n": 200, "steps": 30, "batch_size": 32, "n_params": 60_000, "evaluate_every": 30}
    runs = []
    for name in ("first", "second"):
        teacher = ask(server, tmp_path / "answers.jsonl", limits=Limits(price=(1.0, 2.0), budget=5.0))
        runs.append((zskd.distill(teacher, out=tmp_path / name, **settings), teacher.usage))
    assert runs[0][1].questions == len(server.delivered) and set(server.delivered.values()) == {1}
    assert runs[1][1].questions == 0 and runs[1][1].kept > 200 and runs[0][1].cost > 0


def test_completions_labels_and_options(server, hidden, rows, tmp_path):
    few, truth = rows[:12], softmax(hidden.logits(rows[:12]), axis=1)
    plain = ask(server, tmp_path / "a.jsonl", api="completions", model="small", key="secret", seed=7, temperature=None, top_k=3)
    np.testing.assert_allclose(softmax(plain.logits(few), axis=1), truth, atol=1e-4)
    sent = server.requests[-1]
    assert (
        sent["key"] == "Bearer secret" and sent["seed"] == 7 and sent["top_k"] == 3 and "temperature" not in sent and sent["logprobs"] == 5
    )
    labels = ask(server, tmp_path / "b.jsonl", returns="labels")
    assert labels.logits(few).argmax(1).tolist() == truth.argmax(1).tolist()
    eight = labels.smoothed(8)
    assert eight.logits(few[:3]).shape == (3, 2) and eight.queries <= 3 * 8 and labels.usage.questions > 12
    server.text = ("I will not say", "I will not say")
    with pytest.raises(UserError, match="30 of 30 answers name no class .* for example 'I will not say'"):
        ask(server, tmp_path / "c.jsonl", returns="labels").logits(rows[:30])
    with pytest.warns(UserWarning, match="read as equal probabilities"):
        p = softmax(ask(server, tmp_path / "d.jsonl", returns="labels").logits(rows[:3]), axis=1)
    np.testing.assert_allclose(p, 0.5)


def test_what_an_endpoint_refuses(server, rows, tmp_path):
    server.shows = False
    with pytest.raises(UserError, match="shows no probabilities of tokens; use 'labels' here"):
        ask(server, tmp_path / "a.jsonl").logits(rows[:2])
    server.models = ["small", "large"]
    with pytest.raises(UserError, match=r"has 2 models \(small, large\); name one"):
        ask(server, tmp_path / "a.jsonl")
    for status, kind in (("401", UserError), ("404", UserError), ("400", UserError), ("422", UserError), ("503", RunError)):
        server.fault = lambda n, status=status: status
        with pytest.raises(kind, match=r"^http://127\.0\.0\.1.*not now") as error:
            ask(server, tmp_path / "a.jsonl", model="small", limits=Limits(retries=0)).logits(rows[:2])
        assert "\n" not in str(error.value)
    server.close()
    with pytest.raises(RunError, match="Connection error"):
        ask(server, tmp_path / "b.jsonl", limits=Limits(retries=0))
    (tmp_path / "folder.jsonl").mkdir()
    for file in (tmp_path / "folder.jsonl", tmp_path / "folder.jsonl" / "a\0b"):
        with pytest.raises(UserError, match="answers cannot be kept there"):
            AnswerFile(file)


def test_speed_is_limited(server, rows, tmp_path):
    began = time.monotonic()
    ask(server, tmp_path / "a.jsonl", limits=Limits(per_minute=600)).logits(rows[:11])
    assert time.monotonic() - began >= 1.0


def test_tokens_are_estimated_and_a_doubtful_prompt_is_named(server, rows, tmp_path):
    answer = server.answer
    server.answer = lambda *given: {name: value for name, value in answer(*given).items() if name != "usage"}
    teacher = ask(server, tmp_path / "a.jsonl", limits=Limits(price=(1.0, 1.0), budget=0.0005))
    with pytest.raises(RunError, match="could exceed the budget of 0.0005 for one process"):
        teacher.logits(rows)
    assert 0 < teacher.usage.cost <= 0.0005 and "(estimated)" in str(teacher.usage)
    words = {"words": ["positively bad", "the good one"]}  # what the server writes for other things
    with pytest.warns(UserWarning, match="of the probability is on words that are no class's"):
        ask(server, tmp_path / "b.jsonl", **words, api="completions", model="small").logits([("a good film",)] * 2 + rows[:30])


def test_an_endpoint_is_not_timed_and_an_interrupt_counts_what_arrived(server, rows, tmp_path):
    teacher = ask(server, tmp_path / "a.jsonl")
    student = zskd.Student.create(teacher, n_params=60_000, corpus=["a good film", "a bad one"])
    examples = TASKS["sst2"].load("validation", "demo")
    few = type(examples)(examples.rows[:20], examples.labels[:20], examples.task)
    report = zskd.evaluate(teacher, student, few)
    assert report.data["teacher"]["latency_ms"] is None and report.data["student"]["latency_ms"] > 0 and "latency" in report.table()

    read, calls = teacher.compute, []

    def interrupted(part: list) -> np.ndarray:
        calls.append(len(part))
        found = read(part)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return found

    teacher.compute, teacher.at_once = interrupted, 64
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted \(128 new answers of the teacher are stored\)$"), count_answers(teacher):
        teacher.logits(rows, cache=tmp_path / "logits", desc="label")


def test_an_audit_does_not_trust_kept_answers(server, call, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"endpoint": server.url, "prompt": PROMPT, "labels": LABELS, "answers": "kept.jsonl"}))
    code, out, err = call("audit", file, "--rows", 300, "--max-queries", 700)
    assert code == 0 and "the answers of an endpoint are kept" in out and "questions (" in out, err
