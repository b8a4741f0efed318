"""What the first word vectors of a student are worth: small runs of the demo's kind with several starts.

    python scripts/starts.py

All students learn from the same 5,000 rows of the embedded sample and the embedded teacher's answers, and are scored once on the review
sentences of the package. The result is written to `nbs/benchmarks/results/starts.json`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from provenance import made_by

from zskd.core import ASSETS, write_json
from zskd.corpora import load_corpus
from zskd.evaluation import evaluate
from zskd.pools import ood_pool
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.training import Distiller

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "starts.json"
ROWS, SEEDS = 5_000, (0, 1, 2)
SETTINGS: dict[str, Any] = {"steps": 400, "batch_size": 64, "lr": 3e-3, "held_out": 0.1}
STARTS: dict[str, dict[str, Any]] = {  # arguments of `Student.create`
    "convolution, the teacher's states": {"family": "convolution", "init": "teacher"},
    "convolution, the embedded encoder's states": {"family": "convolution", "init": "auto"},  # of a teacher that is a function
    "convolution, random": {"family": "convolution", "init": "random"},
    "attention, the teacher's words and layers": {"family": "attention", "init": "teacher"},
    "attention, random": {"family": "attention", "init": "random"},
}


def main() -> None:
    """Run every start with every seed, and write one result file."""
    task = TASKS["sst2"]
    teacher, examples = Teacher.load(ASSETS / "teacher").for_task(task), task.validation("demo")
    pool = ood_pool(task, load_corpus("sample"), ROWS, teacher)
    texts = [text for (text,) in pool.rows()]
    function = Teacher.from_callable(teacher.predict_proba, labels=teacher.labels)
    found: dict[str, Any] = {}
    for name, how in STARTS.items():
        runs = []
        for seed in SEEDS:
            asked = function if how["init"] == "auto" else teacher
            student = Student.create(asked, n_params=teacher.n_params // 30, corpus=texts, seed=seed, **how)
            with tempfile.TemporaryDirectory() as out:
                run = Distiller(teacher, student, pool, f"{out}/run", task=task, seed=seed, **SETTINGS)
                report = evaluate(teacher, run.fit(), examples, timed=0).data
            runs.append({"held_out": run.best, "accuracy": report["student"]["score"], "agreement": report["agreement"]})
        found[name] = {"accuracy": mean(r["accuracy"] for r in runs), "runs": runs}
        print(name, found[name]["accuracy"], flush=True)
    write_json(RESULT, {"command": "python scripts/starts.py", "rows": ROWS, "settings": SETTINGS, "starts": found, **made_by()})


if __name__ == "__main__":
    main()
