"""What a measured figure depends on, apart from its command."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from zskd.core import cpu_has_bf16, versions


def made_by() -> dict[str, object]:
    """Commit, kind of machine and versions, for a result file. It is marked as dirty if any file but result files differs."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)nbs/benchmarks/results")
    commit = git("rev-parse", "--short=7", "HEAD") + ("-dirty" if changed else "")
    machine = f"{os.cpu_count()} cores {platform.machine()}, bfloat16 {'in hardware' if cpu_has_bf16() else 'not in hardware'}"
    return {"commit": commit, "machine": machine, "versions": versions()}
