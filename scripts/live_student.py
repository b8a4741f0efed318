"""Make the page on which the demo's student runs in a browser; the site's first page shows it.

Quarto runs this in the folder of the pages before it renders them. The page is made once, which takes some minutes, and kept in nbs/live;
delete that folder to make a new one. Without npm there is no such page, and the first page of the site shows a picture instead.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = Path(__file__).resolve().parent.parent / "nbs" / "live"
RUN = "The student of zskd demo"  # the page's title


def make() -> None:
    "Distil the demo's student, and write the pages of its run."
    with tempfile.TemporaryDirectory(dir=KEPT.parent, prefix=".live.", suffix=".tmp") as tmp:
        zskd = [sys.executable, "-m", "zskd"]
        subprocess.run([*zskd, "demo", "--out", f"{tmp}/{RUN}"], check=True)
        subprocess.run([*zskd, "dashboard", f"{tmp}/{RUN}", "--pages", f"{tmp}/pages", "--web"], check=True)
        Path(tmp, "pages").rename(KEPT)


if __name__ == "__main__":
    if not KEPT.exists() and shutil.which("npm"):
        make()
    if not KEPT.exists():
        print("npm is missing, so the first page of the site shows a picture in place of the student")
    elif Path("live").resolve() != KEPT:
        shutil.copytree(KEPT, "live", dirs_exist_ok=True)
