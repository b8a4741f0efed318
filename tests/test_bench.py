"`zskd bench`: every ratio is there, and a result file that a page can show."

import json
import math

import pytest

from zskd.labelling_speed import LIMITS
from zskd.measuring import Ratio


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    "What the command printed, and its result, in a quick run without a teacher."
    import contextlib
    import io

    from zskd import cli

    out, printed = tmp_path_factory.mktemp("bench") / "result.json", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(["bench", "--quick", "--device", "cpu", "--out", str(out)])
    assert code == 0
    return printed.getvalue(), json.loads(out.read_text())


def test_all_ratios_are_there_and_finite(quick):
    _, result = quick
    found = {(r["part"], r["what"]): r for r in result["ratios"] if r["precision"] == "fp32"}
    pipes = [what for part, what in found if what.startswith("against pipeline")]
    assert len(pipes) == 1
    pipe = pipes[0].removeprefix("against ")
    assert set(found) == {
        ("labelling", "share of the matrix-product peak"),
        *(("labelling", what) for what in LIMITS),
        ("labelling", "tokenising alone, share of the time"),
        ("labelling", f"against {pipe}"),
        ("labelling", f"same predictions as {pipe}"),
        ("labelling", "against sorted loop"),
        ("labelling", "same predictions as sorted loop"),
        ("training", "against a Trainer with stored logits"),
        ("training", "overhead of the loop"),
    }
    assert all(math.isfinite(r["value"]) and r["value"] > 0 for r in result["ratios"])
    assert all(r["rounds"] == [] or sorted(r["rounds"])[0] <= r["value"] <= sorted(r["rounds"])[-1] for r in result["ratios"])


def test_predictions_are_the_same(quick):
    _, result = quick
    same = [r for r in result["ratios"] if r["what"].startswith("same predictions")]
    assert len(same) >= 2 and all(r["value"] == 1.0 and r["reached"] for r in same if r["precision"] == "fp32")


def test_the_result_says_what_it_depends_on(quick):
    printed, result = quick
    assert result["command"] == "zskd bench --out result.json --quick --device cpu"
    assert {"commit", "versions", "machine", "load", "plan", "limits", "rates", "skipped"} <= set(result)
    assert result["machine"]["cores"] >= result["machine"]["threads"] >= 1 and result["machine"]["device"] == "cpu"
    assert {s["what"].partition(",")[0] for s in result["skipped"]} >= {"compiled loop", "ONNX Runtime", "OpenVINO"}
    assert all(r["what"] in printed for r in result["ratios"]) and all(s["why"] in printed for s in result["skipped"])
    assert all(Ratio(**{k: v for k, v in r.items() if k != "reached"}).reached == r["reached"] for r in result["ratios"])


def test_mistakes(call, tmp_path):
    for words, reason in (
        (["--out", tmp_path], "ends in .json"),
        (["--out", tmp_path / "x.json", "--quick", tmp_path / "nowhere"], "no such folder"),
    ):
        code, _, err = call("bench", *words)
        assert code == 2 and reason in err and err.count("\n") == 1
    assert not (tmp_path / "x.json").exists()
