"""Take the pictures of the dashboards for their page, from a real run served by `zskd dashboard`.

    python scripts/screenshots.py [NAME ...]     all of them if none is named

This needs Chromium and writes nbs/images/NAME.png. The picture `live` is of the page that scripts/live_student.py made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pypandoc
from playwright.sync_api import Browser, Error, sync_playwright

IMAGES = Path(__file__).parents[1] / "nbs" / "images"
RUN = """
from pathlib import Path
from zskd.adversaries import MaxDivergenceSearch
from zskd.core import ASSETS
from zskd.corpora import load_corpus
from zskd.dashboards import Comparison, Explorer
from zskd.loss_explorer import LossExplorer
from zskd.pools import ood_pool
from zskd.run_views import Monitor, SearchViewer
from zskd.serve import RunDashboard, serve
from zskd.side_by_side import Answers
from zskd.stage2 import Stage2
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.tracking import TrackerCallback
from zskd.training import Distiller
task = TASKS["sst2"]
teacher = Teacher.load(ASSETS / "teacher").for_task(task)
pool = ood_pool(task, load_corpus("sample"), 12_000, teacher, cache="logits")
student = Student.create(teacher, ratio=30, corpus=[text for text, in pool.rows()])
settings = {"task": task, "cache": "logits", "steps": 300, "precision": "fp32", "adversary": Stage2(MaxDivergenceSearch())}
run = lambda: Distiller(teacher, student, pool, "run", resume=Path("run").exists(), callbacks=[TrackerCallback("tensorboard")], **settings)
"""
VIEWS = {  # what is shown, and the height of the picture
    "explorer": ('Explorer(teacher, Student.load("run/student"), pool, "a moving film , never dull")', 640),
    "comparison": (
        'Comparison({"film reviews": Answers.ask(teacher, Student.load("run/student"), (e := task.validation("demo")).rows, e.labels)}, '
        'per_page=4, actions={"open": print, "pin": print})',
        1150,
    ),
    "search_viewer": ('SearchViewer.of_run("run")', 760),
    "monitor": ('Monitor("run")', 900),
    "loss_explorer": ('LossExplorer(teacher, Student.load("run/student"), task.validation("demo").rows[:12])', 800),
    "run": ('RunDashboard("run", teacher, pool, task.validation("demo"))', 820),
}


def take_card(browser: Browser, folder: str) -> None:
    """The card of the run's student, as a hub shows it."""
    text = Path(folder, "run", "student", "README.md").read_text(encoding="utf-8")
    page_style = (
        "body { font: 15px/1.45 sans-serif; margin: 1rem 1.5rem; color: #222 } h1 { font-size: 1.5rem } h2 { font-size: 1.15rem } "
        "table { border-collapse: collapse } td, th { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left } "
        "thead:not(:has(th:not(:empty))) { display: none } pre { background: #f4f4f2; padding: .6rem; overflow: hidden }"
    )
    page = browser.new_page(viewport={"width": 800, "height": 1000})
    page.set_content(f"<style>{page_style}</style>{pypandoc.convert_text(text, 'html', 'gfm+yaml_metadata_block')}")
    page.screenshot(path=IMAGES / "card.png")


def take_tensorboard(browser: Browser, folder: str) -> None:
    """The curves of the run in TensorBoard."""
    server = subprocess.Popen(
        [Path(sys.executable).with_name("tensorboard"), "--logdir", "run", "--port", "6111"], cwd=folder, stderr=subprocess.DEVNULL
    )
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    for _ in range(60):
        try:
            page.goto("http://localhost:6111/?darkMode=false#timeseries")
            break
        except Error:
            time.sleep(1)
    page.wait_for_selector("card-view", timeout=60_000)
    time.sleep(5)
    page.screenshot(path=IMAGES / "tensorboard.png")
    server.terminate()


def take_live(browser: Browser) -> None:
    """The page in which the student runs, with a text that the teacher answered, too."""
    server = ThreadingHTTPServer(("localhost", 0), partial(SimpleHTTPRequestHandler, directory=IMAGES.parent / "live"))
    Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": 800, "height": 330})
    page.goto(f"http://localhost:{server.server_port}")
    page.wait_for_function("globalThis.zskd")
    page.locator("td button").nth(2).click()
    time.sleep(1)
    page.screenshot(path=IMAGES / "live.png")
    server.shutdown()


OTHERS = {"card": take_card, "tensorboard": take_tensorboard}


def main() -> None:
    """Make the run, then serve each view and take its picture."""
    IMAGES.mkdir(exist_ok=True)
    names = sys.argv[1:] or [*VIEWS, *OTHERS, "live"]
    views = {name: VIEWS[name] for name in names if name in VIEWS}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        if set(names) != {"live"}:
            subprocess.run([sys.executable, "-c", RUN + "(r := run()).fit(); r.report(task.validation('demo'))"], cwd=folder, check=True)
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (code, height) in views.items():
            words = f"{RUN}serve(lambda say: lambda: {code}, browser=False, token=False)"
            server = subprocess.Popen(
                [sys.executable, "-c", words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            try:
                address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
                page = browser.new_page(viewport={"width": 900, "height": height})
                page.goto(address, timeout=60_000)
                page.wait_for_selector(".js-plotly-plot .main-svg", timeout=180_000)
                time.sleep(2)
                page.screenshot(path=IMAGES / f"{name}.png")
            finally:
                server.terminate()
                server.wait(20)
        for name in OTHERS.keys() & set(names):
            OTHERS[name](browser, folder)
        if "live" in names:
            take_live(browser)
        browser.close()


if __name__ == "__main__":
    main()
