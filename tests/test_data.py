"""Files as people bring them, from the command line: each is read as a person means it, or refused in one line that says which line of it
and what to do."""

import gzip
import json
import shutil
import time

import pytest
from models import make_teacher

from zskd import cli
from zskd.corpora import load_corpus, split_sentences, split_words
from zskd.errors import UserError
from zskd.folders import run_options

SMALL = ["--n", "120", "--steps", "4", "--batch-size", "16", "--preset", "bert-tiny", "--init", "random", "--device", "cpu"]
PROSE = [
    f"The {a} {b} was {c} and the {d} stood near it."
    for a in ["old", "new", "small", "long"]
    for b in ["mill", "road", "ship", "hall"]
    for c in ["open", "full", "dark"]
    for d in ["tree", "wall"]
]


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("moods"), ("negative", "positive"))


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("stars"), ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"))


def evaluate(call, teacher, file, out, *words):
    "Score a teacher and a copy of it on a file; exit code, true classes as [rows of each class], standard error."
    student = shutil.copytree(teacher, out.with_name("student"), dirs_exist_ok=True)
    code, _, err = call("evaluate", "--teacher", teacher, "--student", student, "--data", file, "--out", out, *words)
    report = json.loads((out / "report.json").read_text()) if code == 0 else None
    return code, report and [sum(row) for row in report["confusion"]["teacher"]], err


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("floats.tsv", "text\tlabel\nwarm\t1.0\ncold\t0.0\nwet\t0.\n", [2, 1]),
        ("quotes.tsv", 'text\tlabel\n"She said ""no"" twice"\tpositive\n', [0, 1]),
        ("commas.csv", 'label,text\nPositive,"warm, and ""dry"""\nNEGATIVE,cold\n', [1, 1]),
        ("lines.jsonl", '{"label": "negative", "text": "cold"}\n\n{"label": 1, "text": "warm"}\n'.replace("1,", '"positive",'), [1, 1]),
        ("numbers.jsonl", '{"label": 0, "text": "cold"}\n{"label": 1.0, "text": "warm"}\n', [1, 1]),
    ],
)
def test_data_is_read_as_it_is_meant(call, tmp_path, moods, name, text, counts):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert evaluate(call, moods, tmp_path / name, tmp_path / "out")[:2] == (0, counts)
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text() + (tmp_path / "out" / "report.html").read_text()


def test_the_quotes_of_a_field_do_not_reach_a_model(tmp_path):
    from zskd.tasks import Task, read_examples

    task = Task("moods", ("negative", "positive"), ("text",))
    (tmp_path / "a.tsv").write_text('text\tlabel\n"She said ""no"" twice"\t1\nHer "yes\t0\n', encoding="utf-8")
    assert read_examples(tmp_path / "a.tsv", task).rows == [('She said "no" twice',), ('Her "yes',)]


@pytest.mark.parametrize(
    ("name", "text", "words", "says"),
    [
        ("half.tsv", "text\tlabel\nwarm\t1\ncold\t0.5\n", [], "line 3 has the label '0.5'"),
        ("one_two.csv", "text,label\nwarm,2\ncold,1\n", [], "the numbers in this file run from 1 to 2, but class numbers begin at 0"),
        (
            "mood.tsv",
            "text\tmood\nwarm\tpositive\n",
            [],
            "no label column 'label'; its columns are text, mood",
        ),
        ("open.csv", 'text,label\nwarm,1\n"cold,0\nwet,1\n', [], "line 3 is not good CSV: a quote opens there and never closes"),
        (
            "ragged.tsv",
            "id\ttext\tlabel\n1\twarm\t1\n\tlost\n3\tcold\t0\n",
            [],
            "line 3 has 2 fields but the header 3 (id, text, label); fix it (commands that read many texts can skip bad lines)",
        ),
        ("deep.jsonl", "[" * 100_000, [], "is JSON that is nested too deeply"),
        ("~nosuchuser/a.tsv", None, [], "there is no user 'nosuchuser'"),
    ],
)
def test_bad_data_is_refused_in_one_line(call, tmp_path, moods, name, text, words, says):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    code, _, err = evaluate(call, moods, name if text is None else tmp_path / name, tmp_path / "out", *words)
    assert code == 2 and says in err and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("zskd evaluate: ") and name in err


def test_a_label_column_and_bad_lines_on_request(call, tmp_path, moods):
    (tmp_path / "a.tsv").write_text("text\tmood\tid\nwarm\tpositive\t1\nlost\ncold\tnegative\t2\n", encoding="utf-8")
    code, counts, err = evaluate(call, moods, tmp_path / "a.tsv", tmp_path / "out", "--label-column", "mood", "--skip-bad-lines")
    assert (code, counts) == (0, [1, 1])
    assert err.count("skipped 1 bad line(s), the first is line 3") == 1


def test_numbers_in_the_names_of_classes_come_first(call, tmp_path, stars):
    (tmp_path / "a.tsv").write_text("text\tlabel\nfine\t1\nbetter\t4\n", encoding="utf-8")
    code, counts, err = evaluate(call, stars, tmp_path / "a.tsv", tmp_path / "out")
    assert (code, counts) == (0, [1, 0, 0, 1, 0])
    assert "the label 1 is read as '1 star' (the numbers in the names of classes), not as '2 stars' (class numbers from 0)" in err


def test_answers_beside_the_text_never_become_text(call, tmp_path):
    """A quote that never closes would make columns of answers part of a text; so would one that a later quote closes by chance."""
    rows = "id,text,label\n" + "".join(f"{i},{line},{'good' if i % 2 else 'bad'}\n" for i, line in enumerate(PROSE))
    broken = rows.replace(f"7,{PROSE[7]}", f'7,"{PROSE[7]}')
    (tmp_path / "a.csv").write_text(broken, encoding="utf-8")
    with gzip.open(tmp_path / "b.csv.gz", "wt", encoding="utf-8") as f:
        f.write(broken)
    for name in ("a.csv", "b.csv.gz"):
        code, _, err = call("pool", "--n-texts", 1, "--corpus", tmp_path / name, "--n", 20, "--out", tmp_path / "no")
        assert code == 2 and f"{name}: line 9 is not good CSV: a quote opens there" in err and err.count("\n") == 1
    code, _, err = call("pool", "--n-texts", 1, "--corpus", tmp_path / "a.csv", "--n", 20, "--skip-bad-lines", "--out", tmp_path / "pool")
    assert code == 0 and err.count("skipped 1 bad line(s), the first is line 9") == 1
    (tmp_path / "c.csv").write_text(broken.replace(f"{PROSE[11]},", f'{PROSE[11]}",'), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"1 field\(s\) in quotes look like several rows, the first at line 9"):
        assert len(list(load_corpus(tmp_path / "c.csv").paragraphs())) > len(PROSE) - 5
    (tmp_path / "d.csv").write_bytes(b"text\n" + b"a good line\n" * 2_000 + b"a \0 line\n")
    with pytest.raises(UserError, match="d.csv: is a binary file"):
        list(load_corpus(tmp_path / "d.csv").paragraphs())


def test_halves_of_characters_are_repaired_while_reading(call, tmp_path):
    with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": f"{line} \ud83d"}) + "\n" for line in PROSE)
    code, _, err = call("pool", "--n-texts", 1, "--corpus", tmp_path / "a.jsonl", "--n", 30, "--out", tmp_path / "pool")
    assert code == 0 and err.count(f"repaired {len(PROSE)} text(s)") == 1 and "the first at line 1" in err


def test_a_megabyte_of_one_character_takes_no_time(tmp_path):
    for character in ".…!":
        (tmp_path / "a.txt").write_text(character * 1_000_000 + f"\n{PROSE[0]}", encoding="utf-8")
        began = time.process_time()
        assert [len(split_words(s)) for s in load_corpus(tmp_path / "a.txt").sentences(3)] == [11]
        assert time.process_time() - began < 1
    assert split_sentences("." * 8_000) == ["." * 8_000]


def test_a_teacher_of_any_task(call, tmp_path, moods):
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "train.csv").write_text(
        "body,kind\n" + "".join(f'"{line}",{"ham" if i % 2 else "spam"}\n' for i, line in enumerate(PROSE[:32])), encoding="utf-8"
    )
    (folder / "validation.jsonl").write_text(
        "".join(json.dumps({"body": line, "kind": "spam"}) + "\n" for line in PROSE[40:50]), encoding="utf-8"
    )
    given = ["--base", moods, "--labels", "ham", "spam", "--columns", "body", "--label-column", "kind", "--epochs", 1, "--batch-size", 16]
    code, out, _ = call("teacher", *given, "--data", folder, "--out", tmp_path / "teacher")
    assert code == 0 and "on 10 examples" in out
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["id2label"] == {"0": "ham", "1": "spam"}
    for words, says in [
        (["--base", moods], "give --task NAME, or for a task of your own --labels"),
        (given, "--data: is needed for a task of your own"),
        ([*given, "--data", folder / "train.csv"], "is one file, so the teacher would be scored on what it learned from"),
        ([*given, "--task", "sst2", "--data", folder], "--labels: is for a task of your own"),
    ]:
        code, _, err = call(
            "teacher", *[w for w in words if "--task" not in words or w not in ("--columns", "body")], "--out", tmp_path / "no"
        )
        assert code == 2 and says in err.strip().splitlines()[-1], err


@pytest.fixture(scope="module")
def one_answer(tmp_path_factory):
    "A run from a teacher that gives one answer to everything; its folder, and what was said."
    top = tmp_path_factory.mktemp("secret-place")
    teacher = make_teacher(top / "teacher", ("no <b>way</b>\n\n<script>x</script>", "yes", "perhaps"), answer=1)
    (top / "prose.txt").write_text("\n".join(PROSE), encoding="utf-8")
    (top / "test.csv").write_text("text,label\nan old mill,yes\na dark hall,perhaps\n", encoding="utf-8")
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()) as said:
        code = cli.main(
            list(
                map(
                    str,
                    [
                        "distill",
                        "--teacher",
                        teacher,
                        "--corpus",
                        top / "prose.txt",
                        "--data",
                        top / "test.csv",
                        "--out",
                        top / "run",
                        *SMALL,
                    ],
                )
            )
        )
    assert code == 0, said.getvalue()
    return top / "run", said.getvalue()


def test_one_answer_to_everything_is_said_everywhere(one_answer):
    run, said = one_answer
    warning = "one class has all of the pool: the teacher answers 'yes' to each of its 120 rows"
    assert said.count(warning) == 1
    report = json.loads((run / "report.json").read_text())
    assert any(warning in note for note in report["notes"]) and report["answers"]["yes"] == 120
    assert "one class has all of the pool" in (run / "report.html").read_text()
    assert "**Warning:** " + warning in (run / "student" / "README.md").read_text()


def test_what_is_passed_on_names_no_folder_and_holds_no_markup(one_answer):
    run, _ = one_answer
    passed_on = [*(run / "student").iterdir(), run / "report.json", run / "report.html"]
    for file in passed_on:
        assert b"secret-place" not in file.read_bytes(), file
    assert json.loads((run / "student" / "zskd.json").read_text())["notes"]["run"]["sources"] == ["prose.txt"]
    card = (run / "student" / "README.md").read_text()
    assert "`no <b>way</b> <script>x</script>`" in card and "\n<script>" not in card
    assert "<script" not in (run / "report.html").read_text()


def test_damaged_records_of_a_run_end_in_one_line(one_answer, call, capsys):
    run, _ = one_answer
    for file, ways, again in [
        (
            "command.json",
            ['{"cut', "[1]", '{"command": 3}', '{"command": "distill", "options": 3}', '{"command": "distill", "options": {"nosuch": 1}}'],
            lambda: run_options(run),
        ),
        (
            "config.json",
            ['{"cut', "[1]", "[" * 100_000],
            lambda: cli.main(
                [
                    "distill",
                    "--resume",
                    "--teacher",
                    str(run.parent / "teacher"),
                    "--corpus",
                    str(run.parent / "prose.txt"),
                    "--data",
                    str(run.parent / "test.csv"),
                    "--out",
                    str(run),
                    *SMALL,
                ]
            ),
        ),
        (
            "student/zskd.json",
            ['{"cut', "[1]", '{"notes": [1]}', '{"max_length": "x"}'],
            lambda: cli.main(
                [
                    "evaluate",
                    "--teacher",
                    str(run.parent / "teacher"),
                    "--student",
                    str(run / "student"),
                    "--data",
                    str(run.parent / "test.csv"),
                ]
            ),
        ),
    ]:
        good = (run / file).read_text()
        for text in ways:
            (run / file).write_text(text)
            capsys.readouterr()
            try:
                code, err = again(), capsys.readouterr().err
            except Exception as e:
                code, err = 2, f"zskd: {e}\n" if type(e).__module__ == "zskd.errors" else pytest.fail(f"{file} {text[:40]}: {e!r}")
            line = err.strip().splitlines()[-1]
            assert (
                code in (1, 2)
                and file.rpartition("/")[2] in line
                and any(way in line for way in ("put the", "choose another", "begin", "delete it"))
            ), (file, text[:40], line)
        (run / file).write_text(good)
