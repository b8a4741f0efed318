"""Run `zskd demo` with three seeds and record its scores on the full SST-2 development set.

    python scripts/demo_seeds.py --data GLUE_FOLDER

The result is written to `nbs/benchmarks/results/demo.json`. Run this on an otherwise idle machine, because it measures time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from provenance import made_by

from zskd.core import read_json, write_json

RESULT = Path(__file__).parents[1] / "nbs" / "benchmarks" / "results" / "demo.json"
KEPT = ("n", "teacher", "student", "compression", "pct_of_teacher", "agreement", "baselines")


def main() -> None:
    """Run each seed in a process of its own and time the whole process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds SST-2/dev.tsv")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            command = [Path(sys.executable).with_name("zskd"), "demo", "--seed", str(seed), "--data", args.data, "--out", f"{out}/demo"]
            subprocess.run(command, check=True)
            minutes = (time.perf_counter() - start) / 60
            report, stages = (read_json(f"{out}/demo/{name}.json") for name in ("report", "stages"))
        runs.append({"seed": seed, "minutes": round(minutes, 2), "stages": stages, **{k: report[k] for k in KEPT}})
    write_json(
        RESULT,
        {
            "command": f"python scripts/demo_seeds.py --data GLUE --seeds {' '.join(map(str, args.seeds))}",
            **made_by(),
            "median_pct_of_teacher": median(r["pct_of_teacher"] for r in runs),
            "most_minutes": max(r["minutes"] for r in runs),
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
