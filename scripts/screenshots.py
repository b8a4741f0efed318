"""Pictures of the dashboards for their page, taken of a real run under Voilà.

    python scripts/screenshots.py [NAME ...]     all of them if none is named

It needs Chromium, and writes nbs/images/NAME.png.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from playwright.sync_api import Error, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "nbs" / "images"
RUN = """
from pathlib import Path
from zskd.adversarial import MaxDivergenceSearch
from zskd.core import ASSETS
from zskd.corpora import load_corpus
from zskd.dashboards import Answers, Comparison, Explorer, Monitor, SearchViewer
from zskd.distill import Distiller
from zskd.ood import ood_pool
from zskd.stage2 import Stage2
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
task = TASKS["sst2"]
teacher = Teacher.load(ASSETS / "teacher").for_task(task)
pool = ood_pool(task, load_corpus("sample"), 12_000, teacher, cache="logits")
student = Student.create(teacher, ratio=30, corpus=[text for text, in pool.rows()])
run = lambda: Distiller(teacher, student, pool, "run", task=task, cache="logits", steps=300, precision="fp32", adversary=Stage2(MaxDivergenceSearch()), resume=Path("run").exists()).fit()
"""
VIEWS = {  # what is shown, and the height of the picture
    "explorer": ('Explorer(teacher, Student.load("run/student"), pool, "a moving film , never dull")', 760),
    "comparison": ('Comparison({"film reviews": Answers.ask(teacher, Student.load("run/student"), (e := task.validation("demo")).rows, e.labels)})', 1000),
    "search_viewer": ('SearchViewer.of_run("run")', 800),
    "monitor": ('Monitor("run")', 900),
    "method": ('from zskd.method import MethodExplorer\nMethodExplorer(teacher, Student.load("run/student"), task.validation("demo").rows[:12])', 850),
    "run": ('from zskd.serve import RunDashboard\nRunDashboard("run", teacher, pool, task.validation("demo"))', 820),
}


def main() -> None:
    """Make the run, then serve and photograph one view after the other."""
    IMAGES.mkdir(exist_ok=True)
    views = {name: VIEWS[name] for name in sys.argv[1:] or VIEWS}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        subprocess.run([sys.executable, "-c", RUN + "run()"], cwd=folder, check=True)
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (code, height) in views.items():
            cells = [nbformat.v4.new_code_cell("import transformers\ntransformers.logging.disable_progress_bar()" + RUN + code)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), Path(folder) / "page.ipynb")
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            server = subprocess.Popen([sys.executable, "-m", "voila", "page.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"], cwd=folder, stderr=subprocess.DEVNULL)
            try:
                page = browser.new_page(viewport={"width": 800, "height": height})
                opened(page, f"http://127.0.0.1:{port}/")
                page.wait_for_selector(".js-plotly-plot .main-svg", timeout=180_000)
                time.sleep(2)
                page.screenshot(path=IMAGES / f"{name}.png")
            finally:
                server.terminate()
                server.wait(20)
        browser.close()


def opened(page: Page, url: str, seconds: float = 60) -> None:
    """Go to a page whose server may still be starting."""
    until = time.time() + seconds
    while True:
        try:
            page.goto(url, timeout=180_000)
            return
        except Error:
            if time.time() > until:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
