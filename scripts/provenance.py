"""What a measured figure hangs on beside its command."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from zskd.core import cpu_has_bf16, versions


def made_by() -> dict[str, object]:
    """Commit, kind of machine and versions, for a result file."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    machine = f"{os.cpu_count()} cores {platform.machine()}, bfloat16 {'in hardware' if cpu_has_bf16() else 'not in hardware'}"
    return {"commit": commit, "machine": machine, "versions": versions()}
