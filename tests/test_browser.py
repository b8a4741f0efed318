"""The dashboards in a real browser: live under Voilà, and as pages of their own."""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("voila", reason="voila is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MODELS = """
import transformers
transformers.logging.disable_progress_bar()
from pathlib import Path
from zskd.core import ASSETS
from zskd.dashboards import Answers, Comparison, Explorer, SearchViewer
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
teacher = Teacher.load(ASSETS / "teacher").for_task(TASKS["sst2"])
rows = TASKS["sst2"].validation("demo").rows[:60]
student = Student.create(teacher, n_params=60_000, corpus=[text for text, in rows], init="random", sensitivity=False)
"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def served(tmp_path):
    "Serves a notebook with Voilà, and gives its address."
    running = []

    def serve(code):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(MODELS + code)]), tmp_path / "page.ipynb")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        words = [sys.executable, "-m", "voila", "page.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
        with open(tmp_path / "voila.log", "w") as log:
            running.append(subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path), "TQDM_DISABLE": "1"}))
        url, until = f"http://127.0.0.1:{port}/", time.time() + 60
        while time.time() < until:
            try:
                urllib.request.urlopen(url + "voila/static/", timeout=5)
            except urllib.error.HTTPError:
                return url
            except OSError:
                time.sleep(0.3)
            else:
                return url
        pytest.fail((tmp_path / "voila.log").read_text()[-2000:])

    yield serve
    for process in running:
        process.terminate()
        process.wait(20)


def bars(page):
    "The numbers that the first figure of the page draws for the teacher."
    return page.evaluate("Array.from(document.querySelector('.js-plotly-plot')._fullData[0].x)")


def wait_for(found, seconds=60):
    "Until something is found."
    until = time.time() + seconds
    while time.time() < until:
        if value := found():
            return value
        time.sleep(0.2)
    return pytest.fail("nothing came in time")


def test_bars_follow_what_is_typed(browser, served):
    page = browser.new_page()
    page.goto(served("Explorer(teacher, student, rows, text='a moving film')"), timeout=120_000)
    page.wait_for_selector(".js-plotly-plot .bars", timeout=120_000)
    before = bars(page)
    assert before[1] > 0.9
    page.get_by_label("text").fill("the plot is a dull mess")
    after = wait_for(lambda: (now := bars(page)) != before and now)
    assert after[0] > 0.9 and "mess" in page.locator(".gtitle").first.text_content()


def test_a_click_on_the_matrix_filters_the_list(browser, served):
    page = browser.new_page()
    page.goto(served("Comparison({'reviews': Answers.ask(teacher, student, rows)})"), timeout=120_000)
    page.wait_for_selector(".js-plotly-plot .hm image", timeout=120_000)
    assert page.get_by_text("60 of 60 texts").count() == 1
    counts = page.evaluate("document.querySelector('.js-plotly-plot')._fullData[0].customdata.map(r => Array.from(r))")
    line = 0 if sum(counts[0]) else 1
    column = max((0, 1), key=lambda k: counts[line][k])
    box = page.locator(".js-plotly-plot .hm image").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * (0.25 + 0.5 * column), box["y"] + box["height"] * (0.25 + 0.5 * line))
    wait_for(lambda: page.get_by_text(f"{counts[line][column]} of 60 texts").count())


def test_sliders_of_the_method_change_what_is_drawn(browser, served):
    page = browser.new_page()
    page.goto(served("from zskd.method import MethodExplorer\nMethodExplorer(teacher, student, rows[:4])"), timeout=120_000)
    page.wait_for_selector(".js-plotly-plot .bars", timeout=120_000)
    before = bars(page)
    page.get_by_label("loss").select_option("logit_mse")
    wait_for(lambda: page.locator(".gtitle").filter(has_text="logit_mse").count())
    assert bars(page) == before  # the answers are the same
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    after = wait_for(lambda: (now := bars(page)) != before and now)
    assert max(after) < max(before)  # warmer is softer
    assert page.locator("ins").count()  # what the language model wrote


def test_the_monitor_moves_while_a_run_is_running(browser, served):
    page = browser.new_page()
    page.goto(
        served("""
from zskd.corpora import load_corpus
from zskd.dashboards import Monitor
from zskd.distill import Distiller
from zskd.ood import ood_pool
pool = ood_pool(TASKS["sst2"], load_corpus("sample"), 600, teacher)
fit = lambda: Distiller(teacher, student, pool, "run", steps=100_000, batch_size=32, evaluate_every=20, precision="fp32", resume=Path("run").exists()).fit()
Monitor("run", fit, every=0.5)
"""),
        timeout=120_000,
    )
    page.get_by_role("button", name="Go on").click(timeout=120_000)
    steps = lambda: page.evaluate("(d => d && d._fullData.length ? d._fullData[0].x.length : 0)(document.querySelector('.js-plotly-plot'))")  # noqa: E731
    seen = wait_for(steps)
    wait_for(lambda: steps() > seen)
    page.get_by_role("button", name="Stop").click()
    wait_for(lambda: page.get_by_text("interrupted; it can be resumed").count())


RUN = MODELS + """
from zskd.adversarial import RandomInfill
from zskd.corpora import load_corpus
from zskd.distill import Distiller
from zskd.ood import ood_pool
from zskd.serve import RunDashboard
from zskd.stage2 import Stage2
pool = ood_pool(TASKS["sst2"], load_corpus("sample"), 600, teacher)
if not Path("run/student").exists():
    Distiller(teacher, student, pool, "run", steps=20, batch_size=32, evaluate_every=10, precision="fp32", adversary=Stage2(RandomInfill(), start=0.5)).fit()
board = RunDashboard("run", teacher, pool, TASKS["sst2"].validation("demo"), most=60)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A folder with a finished run, and the pages of its dashboards, the explorer once more with a long text."
    folder = tmp_path_factory.mktemp("finished")
    pages = "board.to_html('pages')\nExplorer(teacher, student).to_html('pages/long.html', ['a moving film, ' * 20, 'a dull mess'])"
    subprocess.run([sys.executable, "-c", RUN + pages], check=True, cwd=folder, env={**os.environ, "TQDM_DISABLE": "1"})
    return folder


def test_every_tab_of_a_run_shows_its_figures(browser, served, finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(served(RUN.removeprefix(MODELS) + "board"), timeout=120_000)
    page.wait_for_selector(".js-plotly-plot .bars", timeout=120_000)
    for tab, mark in (("Comparison", ".hm"), ("Method", ".bars"), ("Generated texts", ".bars"), ("Monitor", ".scatterlayer .trace"), ("Explorer", ".bars")):
        page.get_by_role("tab", name=tab).click()
        wait_for(lambda mark=mark: page.locator(f".js-plotly-plot {mark}").locator("visible=true").count())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, tab
    page.get_by_text("in words").locator("visible=true").first.click()
    wait_for(lambda: page.locator("td").locator("visible=true").count())


PAGES = {"explorer": 1, "long": 1, "comparison": 5, "method": 2, "written": 2, "monitor": 1}  # figures of each


@pytest.mark.parametrize("name", PAGES)
def test_pages_need_no_network(browser, finished, name):
    page, asked, said = browser.new_page(), [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    page.goto((finished / "pages" / f"{name}.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".js-plotly-plot").count() == PAGES[name]
    assert said == [] and [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
    if name == "long":
        page.wait_for_selector("select")
        before = bars(page)
        page.keyboard.press("Tab")  # to the menu
        page.keyboard.press("ArrowDown")
        wait_for(lambda: bars(page) != before)


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_narrow_dark_screen(browser, finished, name):
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    page.goto((finished / "pages" / f"{name}.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    wait_for(lambda: set(page.evaluate("Array.from(document.querySelectorAll('.js-plotly-plot'), d => d.layout.paper_bgcolor)")) == {"#222222"})
