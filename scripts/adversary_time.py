"""Time that each adversary adds to a distillation.

    python scripts/adversary_time.py --work runs/six

This needs the teachers and pools that `scripts/six_tasks.py` made in that folder. Each adversary, with its defaults, takes one turn in the
middle of a short run. The adversaries' runs alternate, and the shortest time of each kind of step counts. The results are written to
`nbs/benchmarks/results/adversary_time.json`. Compare only the ratios between machines.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from provenance import made_by
from six_tasks import ADVERSARIES, settings_of, size_of
from speed import step_times

from zskd.core import write_json
from zskd.pools import Pool
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher

RESULT = Path(__file__).resolve().parents[1] / "nbs" / "benchmarks" / "results" / "adversary_time.json"
KINDS = ("infill", "search", "gumbel", "gradient")
ROWS, STEPS = 3_000, 40  # rows of the pool, and steps of a run: one half without and one half with texts of the adversary
WARM = 4  # steps that do not count, of each half


def main() -> None:
    """Measure everything and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="runs/six", type=Path, help="folder of `scripts/six_tasks.py`")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["sst2", "mnli", "rte"])
    parser.add_argument("--rounds", type=int, default=2, help="short runs of each adversary")
    args = parser.parse_args()
    command = f"python scripts/adversary_time.py --work runs/six --tasks {' '.join(args.tasks)} --rounds {args.rounds}"
    found = {task: measured(task, args) for task in args.tasks}
    write_json(RESULT, {"command": command, **made_by(), "threads": torch.get_num_threads(), "tasks": found})


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per answer of the teacher, per step without and with each adversary's texts, and per turn of each adversary."""
    task = TASKS[name]
    teacher = Teacher.load(args.work / "teachers" / name).for_task(task)
    whole = Pool.load(args.work / "pools" / f"{name}-wiki")
    pool = replace(whole, dataset=whole.dataset.select(range(ROWS)))
    size = size_of(task, "" if name == "sst2" else "compact", args)  # as in the benchmark
    student = Student.create(teacher, **size, corpus=[t for row in pool.rows() for t in row], n_texts=task.n_texts)
    times: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
    answers: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.rounds):
            begun = time.perf_counter()
            teacher.logits(pool.rows())
            answers.append((time.perf_counter() - begun) / ROWS)
            for kind in KINDS:
                times[kind].append(one_run(kind, teacher, student, pool, task, Path(folder), i))
                print(name, kind, *(f"{t:.3f}" for t in times[kind][-1]), flush=True)
    plain = min(t[0] for runs in times.values() for t in runs)
    steps = settings_of(task, "wiki")["steps"]
    found: dict[str, Any] = {"answer_s": min(answers), "plain_step_s": plain, "steps": steps}
    for kind, runs in times.items():
        mixed, turn = (min(t[i] for t in runs) for i in (1, 2))
        stage2 = ADVERSARIES[kind]()
        last = steps - int(stage2.start * steps)  # steps with an adversary
        turns = -(-last // stage2.student_steps)
        found[kind] = {
            "mixed_step_s": mixed,
            "turn_s": turn,
            "turns": turns,
            "steps_with_adversary": last,
            "run_s": (steps - last) * plain + last * mixed + turns * turn,
        }
    return found


def one_run(kind: str, teacher: Teacher, student: Student, pool: Pool, task: object, folder: Path, i: int) -> tuple[float, float, float]:
    """Seconds per step before the adversary begins, per step with its texts, and per turn; medians of one run."""
    stage2 = ADVERSARIES[kind]()
    stage2.start, stage2.ramp = 0.5, 0.0  # begins in the middle, with its full share at once
    settings = {**settings_of(task, "wiki"), "steps": STEPS, "evaluate_every": STEPS, "held_out": 200}
    done = step_times(teacher, student, pool, folder / f"{kind}-{i}", folder / "logits", task=task, adversary=stage2, **settings)
    each = [b - a for a, b in zip(done, done[1:], strict=False)]  # from the second step
    first = STEPS // 2 - 1  # the step with the turn
    plain, mixed = median(each[WARM:first]), median(each[first + WARM :])
    return plain, mixed, each[first] - mixed


if __name__ == "__main__":
    main()
