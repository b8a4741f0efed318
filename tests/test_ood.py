"""What the ood notebook can't show: other processes, other languages, damaged folders, a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zskd.builders import BUILDERS, TextSample, sample_blocks
from zskd.core import sealed
from zskd.corpora import Corpus, load_corpus
from zskd.errors import RunError, UserError
from zskd.pools import Pool, Recipe, draw_rows, ood_pool
from zskd.tasks import TASKS

CHINESE = """猫是一种常见的家养动物。它们喜欢在白天睡觉，在晚上活动。你见过黑色的猫吗？很多人觉得猫很独立，但是它们也需要陪伴。
北京是中国的首都，人口超过两千万。城市的历史有三千多年。每年有很多游客来参观故宫，也有人去爬长城。交通在早上很拥挤。"""
RUSSIAN = """Москва является столицей России, и в ней живёт более 12 миллионов человек. Город стоит на реке Москве. Кто основал его?
Летом 1147 года князь Юрий впервые упомянул Москву, но город был старше. Сегодня это большой центр науки, культуры и торговли."""


class Coin:
    "A teacher that answers by the length of the text."

    labels = ("short", "long")
    n_texts = None

    def logits(self, rows, cache=None, desc=None):
        long = np.array([sum(map(len, row)) - 90 for row in rows]) / 20
        return np.stack([-long, long], axis=1)


def test_the_same_pool_in_every_process():
    """The digest depends neither on the process nor on Python's hash seed; a new seed gives a new one."""
    tasks = ("sst2", "rte", "qnli")
    code = f"from zskd.pools import ood_pool\nprint(*(ood_pool(t, n=200).digest for t in {tasks}))"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    here, other_seed = ([ood_pool(t, n=200, seed=seed).digest for t in tasks] for seed in (0, 1))
    assert done.stdout.split() == here
    assert not set(here) & set(other_seed)


@pytest.mark.parametrize("task", ["sst2", "mnli", "rte", "mrpc", "qqp", "qnli"])
def test_default_recipes(task):
    """Every builder of a default recipe makes its share from English text, and rows have the form that the task needs."""
    task = TASKS[task]
    pool = ood_pool(task, n=1_000, seed=5)
    rows, recipe = pool.rows(), Recipe.for_task(task)
    assert len(set(rows)) == 1_000 and pool.made["short"] == {}
    assert all(len(row) == task.n_texts and all(t == t.strip() and t for t in row) for row in rows)
    counts = {name: s["rows"] for name, s in pool.stats()["builders"].items()}
    assert all(abs(counts[name] - 1_000 * share) <= 1 for name, share in recipe.builders.items())
    if task.name == "sst2":
        assert all(t == t.lower() for (t,) in rows)
    if task.name == "qqp":
        assert sum(a.endswith("?") for a, _ in rows) > 900
    if task.name == "qnli":
        assert all(a.endswith("?") for a, _ in rows)


@pytest.mark.parametrize("text", [CHINESE, RUSSIAN], ids=["chinese", "russian"])
@pytest.mark.parametrize("task", ["sst2", "mnli", "mrpc", "qqp", "qnli"])
def test_other_languages(text, task):
    """Only the English word lists find nothing; their share goes to the other builders."""
    sample = TextSample(sample_blocks(Corpus.from_texts(text.splitlines()), 1_000))
    sample.question_words = ("为什么", "哪里", "谁") if text is CHINESE else ("Почему", "Где", "Кто")
    recipe = Recipe.for_task(TASKS[task])
    draws = draw_rows(sample, recipe, 60)
    assert len(draws.rows) == 60
    found = set(draws.rows.values())
    missing = set(recipe.builders) - found
    allowed = {name for name in recipe.builders if BUILDERS[name].english} | ({"swap_entity"} if text is CHINESE else set())
    assert missing <= allowed, missing
    if text is CHINESE:
        assert not any(" " in t for row, name in draws.rows.items() for t in row if not name.startswith("random"))


def test_balance_with_a_real_pool():
    pool = ood_pool("sst2", n=1_000, teacher=Coin(), recipe=Recipe({"sentence": 1, "span": 1}, oversample=3))
    stats = pool.stats()
    assert stats["all"]["classes"] == {"short": 500, "long": 500}
    assert pool.made["classes_before"]["short"] != pool.made["classes_before"]["long"]
    assert np.array_equal(pool.logits, Coin().logits(pool.rows()).astype(np.float32))
    assert len(stats["builders"]) == 2


def test_a_teacher_that_fails_is_named():
    class NaN(Coin):
        def logits(self, rows, cache=None, desc=None):
            return np.full((len(rows), 2), np.nan)

    class Short(Coin):
        def logits(self, rows, cache=None, desc=None):
            return np.zeros((len(rows) - 1, 2))

    for teacher in (NaN(), Short()):
        with pytest.raises(UserError, match="teacher: gave logits"):
            ood_pool("sst2", n=50, teacher=teacher)


def test_one_word_for_ever():
    tiny = Corpus.from_texts(["It is what it is."], "tiny")
    with pytest.raises(UserError, match="is too small"):
        ood_pool("sst2", tiny, n=100, recipe=Recipe({"word": 1}))


def test_too_small_a_corpus_says_how_many_rows_it_gives():
    corpus = Corpus.from_texts([p for p, _ in zip(load_corpus().paragraphs(), range(5), strict=False)], "five")
    with pytest.raises(UserError, match=r"n=10000: corpus 'five' is too small .* at most \d+") as e:
        ood_pool("mrpc", corpus, n=10_000)
    enough = int(str(e.value).split("at most ")[1].split()[0])
    assert len(ood_pool("mrpc", corpus, n=enough)) == enough


@pytest.fixture(scope="module")
def pool() -> Pool:
    return ood_pool("qqp", n=300, teacher=Coin())


def change_text(folder: Path) -> None:
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes().replace(b" the ", b" THE ", 1))


def cut_file(folder: Path) -> None:
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-100])


def change_digest(folder: Path) -> None:
    facts = json.loads((folder / "pool.json").read_text())
    (folder / "pool.json").write_text(json.dumps(sealed({**facts, "digest": "0" * 64})))


def change_counts(folder: Path) -> None:
    facts = json.loads((folder / "pool.json").read_text())
    (folder / "pool.json").write_text(json.dumps({**facts, "made": {**facts["made"], "candidates": 7}}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change_text, "is damaged or was changed"),
        (cut_file, "is damaged or was changed"),
        (change_digest, "other texts than its pool.json says"),
        (change_counts, "pool.json: is damaged or was changed"),
        (lambda folder: next(folder.glob("*.arrow")).unlink(), "cannot be read"),
        (lambda folder: (folder / "state.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "pool.json").write_text("{}"), "pool.json: is damaged"),
        (lambda folder: (folder / "pool.json").write_text("[]"), "pool.json: is damaged or was changed"),
        (lambda folder: (folder / "pool.json").write_text('{"task'), "pool.json: is missing or damaged"),
        (lambda folder: (folder / "pool.json").unlink(), "not a pool's folder"),
    ],
)
def test_a_damaged_pool_is_one_clear_line(tmp_path, pool, damage, says):
    pool.save(tmp_path / "pool")
    damage(tmp_path / "pool")
    with pytest.raises((RunError, UserError)) as e:
        Pool.load(tmp_path / "pool")
    assert says in str(e.value) and str(tmp_path) in str(e.value) and "\n" not in str(e.value)


def test_a_full_disk_leaves_nothing_behind(tmp_path, pool, monkeypatch):
    def full(self, folder):
        Path(folder).mkdir()
        Path(folder, "data-00000-of-00001.arrow").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(pool.dataset), "save_to_disk", full)
    with pytest.raises(RunError, match="No space left.*free some space"):
        pool.save(tmp_path / "pool")
    assert list(tmp_path.iterdir()) == []


def test_saved_pools_open_with_datasets(tmp_path, pool):
    from datasets import load_from_disk

    pool.save(tmp_path / "deep" / "pool")
    assert load_from_disk(str(tmp_path / "deep" / "pool")).column_names == ["text_a", "text_b", "builder", "logits"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="already holds something else"):
        pool.save(tmp_path / "file")
    held = pool.split(0.1)[1].save(tmp_path / "held")
    assert len(Pool.load(held)) == 30
