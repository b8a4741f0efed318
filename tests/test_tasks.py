"Tasks: what the notebook cannot show, a process without a hub, and every published shape of the data files."

import os
import subprocess
import sys

import numpy as np
import pytest

from zskd.errors import UserError
from zskd.tasks import TASKS, match_labels, read_examples, score

HEADERS = {  # task: (columns, labels in the file) as the GLUE archives and the hub's exports have them
    "sst2": [("sentence label", "0 1")],
    "mnli": [("sentence1 sentence2 label1 gold_label", "entailment neutral"), ("premise hypothesis label", "0 2")],
    "rte": [("index sentence1 sentence2 label", "entailment not_entailment")],
    "qqp": [("id qid1 qid2 question1 question2 is_duplicate", "0 1"), ("sentence1 sentence2 label", "1 0")],
    "mrpc": [("Quality #1_ID #2_ID #1_String #2_String", "1 0"), ("sentence1 sentence2 label", "not_equivalent equivalent")],
    "qnli": [("index question sentence label", "not_entailment entailment"), ("sentence1 sentence2 label", "0 1")],
}


@pytest.mark.parametrize(("name", "header", "labels"), [(n, h, y) for n, shapes in HEADERS.items() for h, y in shapes])
def test_published_headers(tmp_path, name, header, labels):
    task, columns = TASKS[name], [c.replace("_String", " String") for c in header.split()]
    answer = next(c for c in ("label", "gold_label", "is_duplicate", "Quality") if c in columns)
    lines = [[label if c == answer else f"{c} {i}" for c in columns] for i, label in enumerate(labels.split())]
    file = tmp_path / "dev.tsv"
    file.write_text("\n".join("\t".join(line) for line in [columns, *lines]), encoding="utf-8")
    examples = read_examples(file, task)
    wanted = [task.labels.index(y) if y in task.labels else int(y) for y in labels.split()]
    assert examples.labels.tolist() == wanted
    assert all(len(row) == task.n_texts and "label" not in row[0] for row in examples.rows)


@pytest.mark.parametrize("task", ["sst2", "mnli"])
def test_unreachable_hub_names_the_local_way(tmp_path, task):
    code = (
        "import sys\nfrom zskd.core import RunError\nfrom zskd.tasks import TASKS\n"
        "try:\n    TASKS[sys.argv[1]].validation()\nexcept RunError as e:\n    print(e)\n    sys.exit(1)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    env.pop("ZSKD_DATA", None)
    done = subprocess.run([sys.executable, "-c", code, task], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "as data or in" in done.stdout and "ZSKD_DATA" in done.stdout and f"nyu-mll/glue/{task}" in done.stdout
    assert len(done.stdout.strip().split("\n")) == 1


def test_binary_file_is_named(tmp_path):
    file = tmp_path / "dev.tsv"
    file.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(UserError, match=r"dev\.tsv: is a binary file \(zero byte at offset 0\)"):
        read_examples(file, TASKS["sst2"])


def test_score_does_not_depend_on_how_classes_are_numbered():
    rng, task = np.random.default_rng(0), TASKS["mnli"]
    for _ in range(20):
        answers, truth, order = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.permutation(3)
        plain, turned = score(answers, truth, task), score(order[answers], order[truth], task)
        for key in ("accuracy", "f1", "macro_f1", "mcc"):
            assert plain[key] == pytest.approx(turned[key])


def test_match_labels_undoes_any_permutation():
    rng, names = np.random.default_rng(0), [f"Class {i}" for i in range(20)]
    for _ in range(20):
        order = rng.permutation(20)
        model = [names[i].upper().replace(" ", "_") for i in order]
        assert [model[i].lower().replace("_", " ") for i in match_labels(names, model)] == [n.lower() for n in names]
