"A search for policies that is broken off in a member's training and continued finds what an undisturbed one finds."

import numpy as np
import pytest

from zskd.core import ASSETS, RunFolder
from zskd.methods.rolewise import RoleAugmentation, search_policies
from zskd.shapes import Shape
from zskd.students import Student
from zskd.teachers import Teacher

WORDS = ["good", "bad", "fine", "dull", "day", "film", "plot", "the", "a", "was", "of", "and"]


@pytest.mark.slow
def test_a_search_broken_off_and_continued(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(120)]
    teacher = Teacher.load(ASSETS / "teacher", precision="fp32")
    student = Student.create(teacher, shape=Shape(400, 16, 32, 1, 1, 2, 32), init="random", corpus=rows, max_length=16, sensitivity=False)
    same = {"members": 4, "rounds": 2, "steps": 4, "held_out": 40, "batch_size": 16, "lr": 1e-2, "evaluate_every": 2}
    calm = search_policies(teacher, student, rows, tmp_path / "calm", **same, operations=("drop", "case"))

    def act(self, run, step, loss):
        if run.out.parts[-2:] == ("round-1", "member-2") and step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="interrupted at step 3 of 4"):
        patched.setattr(RoleAugmentation, "on_step", act)
        search_policies(teacher, student, rows, tmp_path / "run", **same, operations=("drop", "case"))
    again = search_policies(teacher, student, rows, tmp_path / "run", **same, operations=("drop", "case"))
    assert vars(again) == vars(calm)
    starts = {(k, i): RunFolder(tmp_path / "run" / f"round-{k}" / f"member-{i}").read_log("start") for k in (0, 1) for i in range(4)}
    assert all(len(lines) == 1 for lines in starts.values())  # no member was trained twice
    assert len(RunFolder(tmp_path / "run" / "round-1" / "member-2").read_log("resume")) == 1
