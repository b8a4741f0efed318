"""What a measured figure depends on, apart from its command."""

from __future__ import annotations

import os
import platform

from zskd.core import cpu_has_bf16, versions
from zskd.measuring import commit


def made_by() -> dict[str, object]:
    """Commit, kind of machine and versions, for a result file. It is marked as dirty if any file but result files differs."""
    machine = f"{os.cpu_count()} cores {platform.machine()}, bfloat16 {'in hardware' if cpu_has_bf16() else 'not in hardware'}"
    return {"commit": commit(), "machine": machine, "versions": versions()}
