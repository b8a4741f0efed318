"""What the corpora notebook can't show: memory over big files, damaged files, an unreachable hub."""

import gzip
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zskd.corpora import load_corpus
from zskd.errors import RunError, UserError
from zskd.pools import ood_pool
from zskd.tasks import TASKS

LINE = "It is a plain sentence about nothing at all. Another one stands beside it, number {}. And so it goes on.\n"


def python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


def write_lines(path: Path, n: int) -> str:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(map(LINE.format, range(n)))
    return str(path)


def write_gz(path: Path, n: int) -> str:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as f:
        f.writelines(map(LINE.format, range(n)))
    return str(path)


def write_jsonl(path: Path, n: int) -> str:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": LINE.format(i)}) + "\n" for i in range(n))
    return str(path)


def write_parquet(path: Path, n: int) -> str:
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as f:
        for start in range(0, n, 10_000):
            f.write_table(pa.table({"text": [LINE.format(i) for i in range(start, min(n, start + 10_000))]}, schema))
    return str(path)


def write_one_line(path: Path, n: int) -> str:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(LINE.format(i).strip() + " " for i in range(n))
    return str(path)


KINDS = {"txt": write_lines, "txt.gz": write_gz, "jsonl": write_jsonl, "parquet": write_parquet, "one.txt": write_one_line}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of one process alone is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_corpus(tmp_path, kind):
    """Six times the text, 27 MB more of it, in any format, needs hardly more memory."""
    write = KINDS[kind]
    code = """
        import re, sys
        from zskd.corpora import load_corpus

        def peak():
            with open("/proc/self/status") as f:
                return int(re.search(r"VmHWM:\\s+(\\d+)", f.read())[1]) / 1024

        few, many = sys.argv[1:]
        sum(1 for _ in load_corpus(few).sentences())
        before = peak()
        print(sum(1 for _ in load_corpus(many).paragraphs()), peak() - before)
    """
    few, many = (write(tmp_path / f"{n}.{kind}", n) for n in (50_000, 300_000))
    done = python(code, few, many)
    assert done.returncode == 0, done.stderr
    n, growth = map(float, done.stdout.split())
    assert n == 300_000 if kind != "one.txt" else n < 40
    assert growth < 20, f"{growth:.1f} MB more for 27 MB more text"  # Arrow takes 16 MB at a time; all lines at once would be 45


def test_sampling_memory_is_bounded(tmp_path):
    """A pool's sample of the text holds as many sentences as it may, not as many as there are."""
    code = """
        import sys, tracemalloc
        from zskd.builders import sample_blocks
        from zskd.corpora import load_corpus
        tracemalloc.start()
        blocks = sample_blocks(load_corpus(sys.argv[1]), 3_000)
        print(sum(map(len, blocks)), tracemalloc.get_traced_memory()[1] / 2**20)
    """
    done = python(code, write_lines(tmp_path / "big.txt", 30_000))
    assert done.returncode == 0, done.stderr
    sentences, peak = map(float, done.stdout.split())
    assert 3_000 <= sentences < 3_010
    assert peak < 2.5, f"{peak:.1f} MB for 3,000 sentences of 3 MB of text"


def test_damaged_gz(tmp_path):
    whole = Path(write_gz(tmp_path / "a.txt.gz", 5_000)).read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flip.txt.gz").write_bytes(whole[:200] + bytes(b ^ 255 for b in whole[200:260]) + whole[260:])
    (tmp_path / "not.txt.gz").write_bytes(b"plain text, whatever its name says\n")
    for name in ("cut", "flip", "not"):
        with pytest.raises(RunError, match=f"{name}.txt.gz: is damaged or cut short") as e:
            list(load_corpus(tmp_path / f"{name}.txt.gz").paragraphs())
        assert "\n" not in str(e.value)


def test_damaged_parquet(tmp_path):
    whole = Path(write_parquet(tmp_path / "a.parquet", 20_000)).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.parquet").write_text("plain text, whatever its name says\n")
    (tmp_path / "flip.parquet").write_bytes(whole[:60] + bytes(b ^ 255 for b in whole[60:2_000]) + whole[2_000:])
    for name in ("cut", "not", "flip"):
        with pytest.raises(RunError, match=f"{name}.parquet: is damaged") as e:
            list(load_corpus(tmp_path / f"{name}.parquet").paragraphs())
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b"\n \n\t\n", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"text,id\n", "is empty"),
        ("late.txt", b"good line\n" * 100 + b"bad \xff line\n", "byte 0xff at offset 1004"),
        ("late.jsonl", b'{"text": "good"}\n{"text": "\xe9"}\n', "byte 0xe9 at offset 27"),
        ("utf16.txt", "Guten Tag".encode("utf-16"), "is UTF-16, not UTF-8; convert it, for example with iconv -f UTF-16 -t UTF-8"),
        ("utf16be.csv", "\ufefftext\nGuten Tag\n".encode("utf-16-be"), "is UTF-16, not UTF-8"),
        ("utf16.jsonl", '{"text": "Guten Tag"}\n'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("unmarked.txt", "Guten Tag".encode("utf-16-le"), "binary file"),
        ("zeros.csv", b"text\n\0\0\0\n", "binary file (zero byte at offset 5)"),
        ("cut.jsonl", b'{"text": "good"}\n{"text": "ba', "line 2 is not JSON"),
        ("other.jsonl", b'{"body": "good", "id": 3}\n', "no column 'text'; it has 'body', 'id'"),
        ("late2.jsonl", b'{"text": "good"}\n{"body": "bad"}\n', "line 2: has no column 'text'"),
        ("other.tsv", b"sentence\tlabel\ngood\t1\n", "no column 'text'; it has 'sentence', 'label'"),
        ("flood.txt", b"ok" + b"\x80" * 3_000_000, "byte 0x80 at offset 2"),
        (
            "semicolons.csv",
            b"id;text\n1;good\n",
            "no column 'text'; its header 'id;text' looks as if semicolons separate its columns, not commas",
        ),
        ("quoted.csv", b'"id";"text"\n1;"good"\n', "semicolons separate its columns"),
        ("tabs.csv", b"id\ttext\n1\tgood\n", "tabs separate its columns, not commas; name the file .tsv"),
        ("commas.tsv", b"id,text\n1,good\n", "commas separate its columns, not tabs; name the file .csv"),
        ("blank.csv", b"\n\nbody,id\ngood,1\n", "no column 'text'; it has 'body', 'id'"),
        ("open.csv", b'text\n"never closed' + b"x" * 200_000, "is not good CSV"),
        (
            "letter.docx",
            b"PK\x03\x04 some words of plain text",
            "is a zip archive, as docx, xlsx, odt and epub are; give plain text (txt, md or any other ending), csv, tsv, jsonl or parquet",
        ),
        ("table.csv", b"PK\x03\x04 some words of plain text", "is a zip archive"),
        ("paper.pdf", b"%PDF-1.4 some words of plain text", "is a PDF; give plain text"),
        ("letter.rtf", b"{\\rtf1 some words of plain text", "is rich text (RTF)"),
        ("packed", b"\x1f\x8b\x08 some words", "is packed with gzip, but its name does not end in .gz"),
        ("weights.dat", b"words \x01\x02 \xfe", "is a binary file (byte 0xfe at offset 9); give plain text"),
        ("latin.log", b"Caf\xe9 Central\n", "is not UTF-8 (byte 0xe9 at offset 3 of the file)"),
    ],
)
def test_bad_files_end_in_one_line_that_names_them(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as e:
        list(load_corpus(tmp_path / name).paragraphs())
    assert name in str(e.value) and says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["notes", "notes.md", "notes.log", "notes.2024"])
def test_plain_text_may_have_any_ending(tmp_path, name):
    (tmp_path / name).write_text("One line of text.\n", encoding="utf-8")
    assert list(load_corpus(tmp_path / name).paragraphs()) == ["One line of text."]


def test_a_column_needs_a_file_with_columns(tmp_path):
    (tmp_path / "a.txt").write_text("One line of text.\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("body\nOne row.\n", encoding="utf-8")
    for source in ("sample", tmp_path / "a.txt"):
        with pytest.raises(
            UserError, match=r"column=body: has no effect, because corpus '.*' is plain text, which has no columns; leave it out"
        ):
            load_corpus(source, column="body")
    assert list(load_corpus([tmp_path / "a.txt", tmp_path / "b.csv"], column="body").paragraphs()) == ["One line of text.", "One row."]


def test_too_short_sentences_are_named_with_their_column(tmp_path):
    (tmp_path / "a.txt").write_text("Too short.\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("body\nToo short.\n", encoding="utf-8")
    for source, column, where in (
        (tmp_path / "a.txt", "text", ""),
        (tmp_path / "b.csv", "body", r" in column 'body'"),
    ):
        with pytest.raises(
            UserError, match=rf"{source.name}': has no sentence of 3 to 50 words{where}, which the recipe needs; give running text"
        ):
            ood_pool(TASKS["sst2"], load_corpus(source, column=column), 5)


def test_wrong_names(tmp_path):
    (tmp_path / "folder").mkdir()
    for source, says in [
        (tmp_path / "none.txt", "no such file or folder; correct the path"),
        ("./none", "no such file or folder; correct the path"),
        (f"{tmp_path}/*.parquet", "no file matches this pattern; correct it"),
        (tmp_path / "folder", "holds no text files"),
    ]:
        with pytest.raises(UserError, match=says):
            load_corpus(source)


@pytest.mark.skipif(sys.platform == "win32" or getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    Path(write_lines(tmp_path / "a.txt", 3)).chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        load_corpus(tmp_path / "a.txt")


def test_unreachable_hub_names_a_local_way():
    code = """
        from zskd.corpora import load_corpus
        from zskd.errors import RunError
        for name in ("wikitext-103", "nobody/nothing:de"):
            try:
                load_corpus(name)
            except RunError as e:
                print(e)
    """
    done = python(code, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.splitlines()
    assert one.startswith("corpus 'wikitext-103': the hub cannot be reached") and "'sample'" in one
    assert "'nobody/nothing:de'" in two


def test_hub_rows_come_through_the_same_door(tmp_path, monkeypatch):
    """A data set that `datasets` streams is read by column, cleaned of WikiText marks, and named in the sources."""
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return iter([{"text": " = Title = \n"}, {"text": ""}, {"text": " A well @-@ known one . \n"}, {"text": None}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load_corpus("wikitext-103")
    assert list(corpus.paragraphs()) == ["A well-known one."]
    assert asked[0] == (("Salesforce/wikitext", "wikitext-103-raw-v1"), {"split": "train", "streaming": True})
    assert corpus.sources == ["Salesforce/wikitext:wikitext-103-raw-v1"]
    with pytest.raises(UserError, match="no column 'body'; it has 'text'"):
        load_corpus("wikitext-2", column="body")


def test_mistakes_with_the_hub_end_in_one_line(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: iter([{"text": "good", "id": 1}]))
    with pytest.raises(UserError, match="some/set: column 'id' is not text; choose another"):
        load_corpus("some/set", column="id")

    def bad_split(*args, **kwargs):
        raise ValueError("Bad split: tran. Available splits: ['train']\nmore")

    monkeypatch.setattr(datasets, "load_dataset", bad_split)
    with pytest.raises(UserError, match=r"Available splits: \['train'\] \(a configuration follows the name after a colon") as e:
        load_corpus("some/set", split="tran")
    assert "\n" not in str(e.value)


def test_fingerprint_is_the_same_in_every_process():
    """Addresses and the order of sets differ between processes; the fingerprint of a function must not."""
    code = """
        from zskd.corpora import load_corpus
        def without(words):
            return lambda line: " ".join(w for w in line.split() if w not in words and w not in {"ein", "eine", "der", "die", "das"})
        print(load_corpus(clean=without({"a", "an", "the", "of"})).fingerprint, load_corpus(clean=str.lower).fingerprint)
    """
    one, two = (python(code, PYTHONHASHSEED=seed) for seed in "12")
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout and len(set(one.stdout.split())) == 2


def test_wikitext_is_recognised_in_each_file_for_itself(tmp_path):
    (tmp_path / "a.txt").write_text("Plain text @ home.\n" * 600, encoding="utf-8")
    (tmp_path / "b.txt").write_text(" = Title = \n\n A well @-@ known one .\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("It prints ( a ) .\n", encoding="utf-8")
    wanted = ["Plain text @ home."] * 600 + ["A well-known one.", "It prints ( a ) ."]
    assert list(load_corpus(tmp_path).paragraphs()) == wanted
    assert list(load_corpus(tmp_path, limit=601).paragraphs()) == wanted[:601]
