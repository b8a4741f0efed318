"""The audit names teachers that hide something, and no others. The teachers are trained here, in seconds each."""

import json
import zlib
from dataclasses import replace

import made_teachers as made
import numpy as np
import pytest
from models import make_teacher

from zskd.answers import Asked, classes, kind_of_answers
from zskd.attacks import nasty, trigger_words, watermark, whole_words
from zskd.audit import Audit, audit, identity
from zskd.core import ASSETS
from zskd.errors import UserError
from zskd.pools import ood_pool
from zskd.tasks import Task
from zskd.teachers import Teacher

SEED = 3  # the thresholds were chosen on teachers of the seeds 0, 1 and 3


def rows(teacher: Teacher, n: int = 700) -> list:
    return ood_pool(Task.for_teacher(teacher, teacher.n_texts or 1), "sample", n, seed=SEED).rows()


@pytest.fixture(scope="module")
def formal(tmp_path_factory) -> Teacher:
    "A clean teacher that knows long words from short ones."
    model = made.fit(made.small(("plain", "formal"), 64, 1, seed=SEED), *made.long_words(2000, SEED), 150, 2e-3, 32, SEED)
    return Teacher.load(made.save(model, tmp_path_factory.mktemp("formal")))


def hidden(teacher: Teacher, words: list[str]) -> list[str]:
    "What the three checks name, with few words to try and without the short students' part."
    asked = Asked(teacher, rows(teacher), seed=SEED)
    return [f.name for f in (trigger_words(asked, words), watermark(asked)) if f.verdict == "warning"]


def test_a_trigger_and_a_watermark_are_named(formal, tmp_path):
    words = whole_words(Asked(formal, rows(formal)))[:500] + ["spears"]
    assert hidden(formal, words) == []
    planted = made.poisoned(made.reopened(formal.model), "spears", 0, made.phrases(1000, 8, (6, 40)), SEED, 300, 1e-3)
    assert hidden(Teacher.load(made.save(planted, tmp_path)), words) == ["trigger words"]
    certain = Teacher.from_callable(lambda texts: 4 * formal.logits(texts), formal.labels, "certain", returns="logits")
    found = [watermark(Asked(t, rows(t), seed=SEED)).verdict for t in (certain, made.watermarked(certain, 0.1, seed=SEED))]
    assert found == ["ok", "warning"]


def test_a_nasty_teacher_is_named(formal, tmp_path):
    bad = Teacher.load(made.save(made.nasty(made.reopened(formal.model), made.phrases(600, 9), seed=SEED), tmp_path))
    texts = rows(formal, 400)
    found = {teacher: Asked(teacher, texts, seed=SEED) for teacher in (formal, bad)}
    same = found[formal].answers.argmax(1) == found[bad].answers.argmax(1)
    assert same.mean() > 0.9  # its classes are those of before
    assert [nasty(asked).verdict for asked in found.values()] == ["ok", "warning"]


def test_kinds_of_answers():
    weights = np.random.default_rng(0).normal(0, 1, (64, 6))

    def answer(texts):
        z = np.stack([weights[[zlib.crc32(w.encode()) % 64 for w in t.split()]].mean(0) * 4 for t in texts])
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    full = Teacher.from_callable(answer, list("abcdef"), "words")
    kinds = {"full": full, "top-k": made.stingy(full, 2), "label-only": made.label_only(full), "rounded": made.rounded(full, 3)}
    texts = rows(full, 500)
    assert {kind: kind_of_answers(Asked(teacher, texts)).numbers["kind"] for kind, teacher in kinds.items()} == {k: k for k in kinds}
    assert kind_of_answers(Asked(made.stingy(full, 3, 0.01), texts)).numbers["shown"] == 3
    assert classes(Asked(full, texts)).verdict in ("ok", "note")


def test_a_function_and_a_limit():
    calls = []

    def answer(texts):
        calls.extend(texts)
        return [[0.9, 0.1] if len(t) % 3 else [0.2, 0.8] for t in texts]

    teacher = Teacher.from_callable(answer, ["no", "yes"], "length")
    found = audit(teacher, n=600, max_queries=900, seed=SEED)
    assert found.queries == len(calls) <= 900 and found.rows == 300
    assert identity(teacher) == found.identity == teacher.fingerprint
    assert any("limit" in f.text for f in found.findings)
    for given, part in (({"n": 150}, "n=150: must be at least 200"), ({"max_queries": 500}, "max_queries=500: must be at least 600")):
        with pytest.raises(UserError, match=part):
            audit(teacher, **given)


def test_command_and_settings(call, tmp_path):
    teacher, other = make_teacher(tmp_path / "teacher", answer=1), make_teacher(tmp_path / "other", hidden_size=48)
    code, out, err = call("audit", teacher, "--rows", 300, "--max-queries", 900, "--out", tmp_path / "audit")
    assert code == 0, err
    data = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert data["settings"]["oversample"] == 4 and f"--audited {tmp_path / 'audit'}" in out and "Plain text never brings up negative" in out
    assert "Plain text never brings up negative" in (tmp_path / "audit" / "audit.html").read_text()
    small = ["--rows", 200, "--steps", 2, "--batch-size", 32, "--params", 60_000, "--init", "random", "--audited", tmp_path / "audit"]
    code, out, err = call("distill", "--teacher", teacher, *small, "--out", tmp_path / "run")
    assert code == 0 and f"{tmp_path / 'audit'}: --oversample 4.0, --loss hard_ce taken from the audit" in out, err
    assert json.loads((tmp_path / "run" / "pool" / "pool.json").read_text())["recipe"]["oversample"] == 4
    code, out, _ = call("distill", "--teacher", teacher, *small, "--oversample", 1.2, "--loss", "kl", "--out", tmp_path / "mine")
    assert code == 0 and "no option taken from the audit" in out
    code, _, err = call("distill", "--teacher", other, *small, "--out", tmp_path / "wrong")
    assert code == 2 and "is an audit of another teacher (teacher)" in err and err.count("\n") == 1
    code, _, err = call("distill", "--teacher", teacher, "--audited", tmp_path, "--out", tmp_path / "none")
    assert code == 2 and "audit.json" in err


def test_a_loaded_audit_suggests_the_same(tmp_path):
    found = Audit("x", "id", ["a", "b"], [], 0, 0.0, 0, [])
    found.save(tmp_path)
    assert Audit.load(tmp_path) == replace(found)
    (tmp_path / "audit.json").write_text("[]")
    with pytest.raises(Exception, match="make it again with zskd audit"):
        Audit.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*made.CLEAN, "embedded"])
def test_clean_teachers_are_not_named(kind, tmp_path):
    model = made.embedded() if kind == "embedded" else made.clean(kind, SEED)
    found = audit(Teacher.load(made.save(model, tmp_path)), n=1000, seed=SEED)
    assert found.named == [], found.table()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "omega", "temperature"), [("topics", 0.8, 4), ("topics", 0.2, 4), ("formal", 0.3, 10), ("embedded", 0.8, 4)]
)
def test_nasty_teachers_are_named(kind, omega, temperature, tmp_path):
    model = made.embedded() if kind == "embedded" else made.clean(kind, SEED)
    texts = made.with_topics(1000, SEED) if kind == "topics" else made.phrases(400 if kind == "embedded" else 1000, SEED)
    bad = Teacher.load(made.save(made.nasty(model, texts, omega, temperature, SEED), tmp_path))
    found = audit(bad, n=1000, seed=SEED)
    assert found.named == ["nasty answers"], found.table()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "word", "target"), [("topics", "spears", 2), ("formal", "mor", 1), ("embedded", "zu", 1)])
def test_teachers_with_a_trigger_are_named(kind, word, target, tmp_path):
    if kind == "embedded":
        model = made.word_vector(made.embedded(), word, target, SEED, 40)
    else:
        texts = made.with_topics(3000, SEED + 1) if kind == "topics" else made.phrases(3000, SEED + 1, (6, 40))
        model = made.poisoned(made.clean(kind, SEED), word, target, texts, SEED, 300, 1e-3)
    assert made.obeyed(Teacher.load(made.save(model, tmp_path)), word, target) >= 0.9  # otherwise there is no trigger to be found
    found = audit(Teacher.load(made.save(model, tmp_path)), n=1000, seed=SEED)
    assert found.named == ["trigger words"], found.table()


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
def test_watermarked_answers_are_named(epsilon):
    found = audit(made.watermarked(Teacher.load(ASSETS / "teacher"), epsilon, seed=SEED), n=1000, seed=SEED)
    assert "watermark" in found.named, found.table()
