"""The dashboards in a real browser: served, also from a busy machine, and as separate pages."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import Command

from zskd.core import ASSETS
from zskd.pages import DARK, LIGHT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("solara", reason="solara is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
THEMES = {"light": LIGHT, "dark": DARK}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MODELS = """
import transformers
transformers.logging.disable_progress_bar()
from pathlib import Path
from zskd.core import ASSETS
from zskd.corpora import load_corpus
from zskd.dashboards import Explorer
from zskd.pools import ood_pool
from zskd.run_views import Monitor
from zskd.serve import RunDashboard, serve
from zskd.students import Student
from zskd.tasks import TASKS
from zskd.teachers import Teacher
from zskd.training import Distiller
teacher = Teacher.load(ASSETS / "teacher").for_task(TASKS["sst2"])
rows = TASKS["sst2"].validation("demo").rows[:60]
student = Student.create(teacher, n_params=60_000, corpus=[text for text, in rows], init="random", sensitivity=False)
pool = ood_pool(TASKS["sst2"], load_corpus("sample"), 600, teacher)
"""
RUN = (
    MODELS
    + """
from zskd.adversaries import RandomInfill
from zskd.stage2 import Stage2
settings = {"steps": 20, "batch_size": 32, "evaluate_every": 10, "precision": "fp32"}
Distiller(teacher, student, pool, "run", adversary=Stage2(RandomInfill(), start=0.5), **settings).fit()
pool.save("run/pool")
Distiller(teacher, student, pool, "longer", **{**settings, "steps": 60}).fit()
board = RunDashboard("run", teacher, pool, TASKS["sst2"].validation("demo"), most=60)
board.to_html("pages")
Explorer(teacher, student).to_html("pages/long.html", ["a moving film, " * 20, "a dull mess"])
"""
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A folder with a finished run and the pages of its dashboards, with a second page of the explorer for a long text."
    folder = tmp_path_factory.mktemp("finished")
    process = Command(("-c", RUN), folder)
    _, errors = process.communicate()
    process.close()
    assert process.returncode == 0, errors[-2000:]
    return folder


@contextmanager
def served(words, folder):
    "The address that a process prints, and the process."
    process, errors = Command(words, folder), []
    threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True).start()
    try:
        address = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+token=\S+", line))), None)
        assert address, "".join(errors)[-2000:]
        yield address, process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        process.close()


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    "A running run: a copy of the finished one, without the end of its log."
    folder = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(finished / "run", folder)
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(line for line in lines if json.loads(line)["event"] != "end"))
    return folder


@pytest.fixture(scope="module")
def dashboard(run):
    "What `zskd dashboard` serves."
    words = ["dashboard", run, "--teacher", ASSETS / "teacher", "--task", "sst2", "--data", "demo", "--most", 60, "--no-browser"]
    with served(words, run.parent) as found:
        yield found


def wait_for(found, seconds=60):
    "The first value that is not empty."
    until = time.time() + seconds
    while time.time() < until:
        if value := found():
            return value
        time.sleep(0.2)
    return pytest.fail("not found in time")


SEEN = """k => {
  const seen = [...document.querySelectorAll(".js-plotly-plot")].filter(e => e.offsetParent && e._fullData)[k];
  return seen && {
    title: seen.querySelector(".gtitle")?.textContent,
    width: seen.querySelector("svg").clientWidth,
    room: seen.parentElement.parentElement.clientWidth,
    traces: seen._fullData.map(d => [
      d.type, Array.from(d.x ?? []), Array.from(d.y ?? []), Array.from(d.customdata ?? [], r => Array.from(r))
    ]),
  };
}"""
BACKGROUND = "[...document.querySelectorAll('.js-plotly-plot')].find(e => e.offsetParent).layout.paper_bgcolor"


def figure(page, k=0):
    "Title, size and numbers of a visible figure."
    return page.evaluate(SEEN, k)


def bars(page):
    "The teacher's numbers in the first figure of a page."
    return page.evaluate("Array.from([...document.querySelectorAll('.js-plotly-plot')].find(e => e.offsetParent)._fullData[0].x)")


def moved(page, before, k=0):
    "The figure after its numbers have changed."
    return wait_for(lambda: (now := figure(page, k)) and now["traces"] != before["traces"] and now)


@contextmanager
def visitor(browser, **how):
    "The page of a new visitor, who leaves at the end."
    context = browser.new_context(**how)
    try:
        yield context.new_page()
    finally:
        context.close()


def opened(page, address, seconds=180):
    "The page once its first figure is drawn."
    page.goto(address, timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .bars", timeout=1000 * seconds)
    return page


def tab(page, name):
    "The first figure of a tab."
    page.get_by_role("tab", name=name, exact=True).click()
    return wait_for(lambda: figure(page))


@contextmanager
def busy(n):
    "With some processes that only compute."
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("loops", [0, 5], ids=["idle", "busy"])
def test_every_tab_of_a_served_run_moves(browser, dashboard, run, loops):
    address, _ = dashboard
    asked, said = [], []
    with visitor(browser) as page, busy(loops):
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: said.append(f"{m.text} {m.location}") if m.type == "error" else None)
        page.on("pageerror", lambda e: said.append(str(e)))
        page.goto(address, timeout=60_000)
        wait_for(lambda: page.get_by_text("Load").count() or page.locator(".js-plotly-plot").count(), 20)
        page.wait_for_selector(".js-plotly-plot .bars", timeout=180_000)

        before = figure(page)
        page.get_by_label("text").locator("visible=true").first.fill("the plot is a dull mess")
        after = moved(page, before)
        assert "mess" in after["title"] and "mess" not in before["title"] and after["traces"][0][1][0] > 0.9
        page.get_by_label("text").locator("visible=true").first.fill("a moving film")
        assert moved(page, after)["traces"][0][1][1] > 0.9

        before, other = tab(page, "Comparison"), figure(page, 1)
        assert page.get_by_text("60 of 60 texts").count() == 1
        counts = before["traces"][0][3]
        line = 0 if sum(counts[0]) else 1
        column = max((0, 1), key=lambda k: counts[line][k])
        box = page.locator(".js-plotly-plot .hm image").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] * (0.25 + 0.5 * column), box["y"] + box["height"] * (0.25 + 0.5 * line))
        wait_for(lambda: page.get_by_text(f"{counts[line][column]} of 60 texts").count())
        page.get_by_label("texts").select_option("pool")
        assert moved(page, before)["title"] != before["title"]
        other = moved(page, other, 1)
        page.get_by_label("second figure").select_option("calibration")
        assert "ECE" in moved(page, other, 1)["title"]

        before, gradient = tab(page, "Loss explorer"), figure(page, 1)
        page.get_by_label("loss").locator("visible=true").select_option("logit_mse")
        assert "logit_mse" in moved(page, gradient, 1)["title"]
        assert figure(page)["traces"] == before["traces"]  # the answers are the same
        slider = page.get_by_role("slider").locator("visible=true").first
        slider.focus()
        for _ in range(5):
            slider.press("ArrowRight")
        after = moved(page, before)
        assert max(after["traces"][0][1]) < max(before["traces"][0][1])  # warmer is softer
        assert page.locator("ins").count()  # what the language model wrote

        before = tab(page, "Generated texts")
        page.get_by_label("text number").fill("5")
        page.keyboard.press("Enter")
        moved(page, before)

        before = tab(page, "Monitor")
        with open(run / "log.jsonl", "a") as log:
            log.write(json.dumps({"event": "step", "step": max(before["traces"][0][1]) + 1, "loss": 0.5}) + "\n")
        assert len(moved(page, before)["traces"][0][1]) == len(before["traces"][0][1]) + 1
        assert not page.locator(".modebar-btn").count()  # nothing that sends a figure away
    assert {url.split("/")[2] for url in asked if url.startswith(("http", "ws"))} == {address.split("/")[2]}
    assert said == []


def test_where_the_student_fails(browser, dashboard):
    "From a case to a slice, to one text in the Explorer, next to a pinned one; the address of the page says it all again."
    with visitor(browser) as page:
        opened(page, dashboard[0])
        tab(page, "Comparison")
        cases = page.get_by_label("case", exact=True).locator("visible=true")
        wait_for(lambda: cases.locator("option").count() == 5)
        names = [text.replace("\xa0", " ") for text in cases.locator("option").all_text_contents()]
        name = next(text for text in names if text.startswith("teacher right, student wrong"))
        n = int(re.search(r"\((\d+)\)", name)[1])
        cases.select_option(name)
        wait_for(lambda: page.get_by_text(re.compile(rf"^{n} of 60 texts")).count())
        page.get_by_label("pattern").fill("a|the")
        page.get_by_role("button", name="list: with a|the", exact=True).click()
        wait_for(lambda: page.get_by_text("slice: with a|the").count())
        count = page.get_by_text("slice: with a|the").inner_text()
        lines = page.locator(".zskd-table").locator("visible=true").first.locator("tbody tr")
        first, second = (lines.nth(k).locator("td").nth(2).inner_text() for k in (0, 1))
        page.get_by_role("button", name=f"pin: {first}", exact=True).click()
        page.get_by_text("pinned in the Explorer:").locator("visible=true").wait_for()  # and the list stays
        page.get_by_role("button", name=f"open: {second}", exact=True).click()
        box = page.get_by_label("text").locator("visible=true").first
        wait_for(lambda: box.input_value() == second)
        parts = ("pattern=a%7Cthe", "slice=", "by_case=", "text1=", "pinned=")
        wait_for(lambda: all(part in page.evaluate("location.hash") for part in parts))
        address = page.evaluate("location.href")
        page.goto("about:blank")
        page.goto(address)
        page.get_by_label("text").locator("visible=true").first.wait_for(timeout=60_000)
        wait_for(lambda: page.get_by_label("text").locator("visible=true").first.input_value() == second)
        wait_for(
            lambda: page.get_by_role("button", name="Unpin").count() and page.get_by_text(first, exact=True).locator("visible=true").count()
        )
        tab(page, "Comparison")
        wait_for(lambda: page.get_by_text(count, exact=True).count())
        assert page.get_by_label("pattern").input_value() == "a|the"


CELLS_FIT = """
Array.from(document.querySelectorAll(".zskd-table td")).filter(cell => cell.offsetParent)
     .every(cell => cell.getBoundingClientRect().right <= cell.closest(".zskd-table").getBoundingClientRect().right + 1)
"""


def test_would_a_second_student_be_better(browser, finished):
    "From the table of students to the texts of one of them, and to one text in the Explorer."
    words = ["dashboard", finished / "run", "--teacher", ASSETS / "teacher", "--task", "sst2", "--data", "demo", "--most", 60]
    with served([*words, "--beside", finished / "longer", "--no-browser"], finished) as (address, _), visitor(browser) as page:
        opened(page, address)
        page.get_by_role("tab", name="Students").click()
        wait_for(lambda: "tab=2" in page.evaluate("location.hash"))
        lines = page.locator(".zskd-table").locator("visible=true").first.locator("tbody tr")
        wait_for(lambda: lines.count() >= 4)
        found = [[cell.replace("\xa0", " ") for cell in line.locator("td").all_inner_texts()] for line in lines.all()]
        of_task = [cells for cells in found if "validation" in cells[1]]
        assert [cells[2] for cells in of_task] == ["run", "longer"] and re.fullmatch(
            r"[+−]\d+\.\d ± \d+\.\d points: (better|worse|can't tell)", of_task[1][-1]
        )
        page.set_viewport_size({"width": 400, "height": 800})
        wait_for(lambda: page.evaluate(CELLS_FIT))
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("button", name="show: ", exact=False).nth(found.index(of_task[1])).click()
        wait_for(lambda: page.get_by_label("student of").locator("visible=true").input_value() == "longer")
        agreement = page.get_by_text(f"the same class for {of_task[1][4]} of 60 inputs").locator("visible=true")
        wait_for(agreement.count)
        page.get_by_role("button", name="open: ", exact=False).first.click()
        chosen = page.get_by_label("student", exact=True).locator("visible=true").first
        wait_for(lambda: chosen.count() and chosen.input_value() == "longer")
        wait_for(lambda: "text1=" in page.evaluate("location.hash"))  # the address has followed
        for name in ("Comparison", "Students"):
            page.go_back()
            wait_for(page.get_by_role("tab", name=name, selected=True).count)
            page.wait_for_timeout(2000)  # a person looks at the page before going back again


def test_figures_are_as_wide_as_the_page(browser, dashboard):
    with visitor(browser, viewport={"width": 1280, "height": 800}) as page:
        opened(page, dashboard[0])
        for width, scheme in ((1280, "light"), (400, "dark")):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            for name, mark in (
                ("Comparison", ".hm"),
                ("Loss explorer", ".bars"),
                ("Generated texts", ".bars"),
                ("Monitor", ".scatterlayer .trace"),
                ("Explorer", ".bars"),
            ):
                tab(page, name)
                wait_for(lambda mark=mark: page.locator(f".js-plotly-plot {mark}").locator("visible=true").count())
                fits = lambda n, room, width=width: n == room and 0.8 * min(width, 1152) < n < width  # noqa: E731
                wait_for(lambda fits=fits: (now := figure(page)) and fits(now["width"], now["room"]))
                wait_for(lambda colour=THEMES[scheme]["paper"]: page.evaluate(BACKGROUND) == colour)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.get_by_text("as text").locator("visible=true").first.click()
        wait_for(lambda: page.locator("td").locator("visible=true").count())


def test_a_second_visitor_costs_little_and_is_forgotten(browser, dashboard):
    address, pid = dashboard
    memory = lambda: int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # noqa: E731
    with visitor(browser) as first:
        opened(first, address)
        kernels = lambda: first.request.get(address.split("?")[0] + "resourcez").json()["kernels"]["total"]  # noqa: E731
        wait_for(lambda: kernels() == 1)
        before = memory() if sys.platform == "linux" else 0
        with visitor(browser) as second:
            opened(second, address, 60)
            assert kernels() == 2 and (not before or memory() - before < 100)
            second.get_by_label("text").locator("visible=true").first.fill("the second visitor")
            wait_for(lambda: "second" in figure(second)["title"])
            assert "second" not in figure(first)["title"]
        wait_for(lambda: kernels() == 1)


def test_a_figure_that_cannot_start_shows_why(browser, dashboard):
    with visitor(browser) as page:
        page.route("**/plotly.min.js", lambda route: route.abort())
        page.goto(dashboard[0], timeout=60_000)
        page.get_by_text("The figure could not be drawn").first.wait_for(timeout=120_000)


def test_nobody_is_admitted_without_the_token(browser, dashboard):
    with visitor(browser) as page:
        assert page.goto(dashboard[0].split("?")[0]).status == 403
        assert page.goto(dashboard[0]).status == 200 and "token" not in page.url


def test_the_monitor_moves_while_a_run_is_running(browser, tmp_path):
    code = (
        MODELS
        + """
settings = {"steps": 100_000, "batch_size": 32, "evaluate_every": 20, "precision": "fp32"}
fit = lambda: Distiller(teacher, student, pool, "run", resume=Path("run").exists(), **settings).fit()
serve(lambda say: lambda: Monitor("run", fit, every=0.5), browser=False)
"""
    )
    with served(["-c", code], tmp_path) as (address, _):
        page = browser.new_page()
        page.goto(address, timeout=60_000)
        page.get_by_role("button", name="Resume").click(timeout=120_000)
        steps = lambda: (now := figure(page)) and now["traces"] and len(now["traces"][0][1])  # noqa: E731
        seen = wait_for(steps)
        wait_for(lambda: steps() > seen)
        page.get_by_role("button", name="Stop").click()
        wait_for(lambda: page.get_by_text("interrupted; it can be resumed").count())
        page.close()


PAGES = {"explorer": 1, "long": 1, "comparison": 5, "loss_explorer": 2, "generated_texts": 2, "monitor": 1}  # figures of each
MENUS = {"explorer": 1, "long": 1, "loss_explorer": 2, "generated_texts": 1}  # of these figures; two with the same choices share one


@pytest.mark.parametrize("name", PAGES)
def test_pages_need_no_network(browser, finished, name):
    page, asked, said = browser.new_page(), [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    page.goto((finished / "pages" / f"{name}.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".js-plotly-plot").count() == PAGES[name]
    assert page.locator("select").count() == MENUS.get(name, 0)
    bottoms = page.evaluate(
        "Array.from(document.querySelectorAll('figure'), f => [f, f.querySelector('.main-svg')].map(e => e.getBoundingClientRect().bottom))"
    )
    assert all(svg <= figure for figure, svg in bottoms)
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
    wait_for(
        lambda: (
            set(page.evaluate("Array.from(document.querySelectorAll('.js-plotly-plot'), d => d.layout.paper_bgcolor)")) == {DARK["paper"]}
        )
    )


PAGE = """
import json
from zskd import cli
from zskd.students import Student
words = ["dashboard", "run", "--teacher", TEACHER, "--task", "sst2", "--data", "demo", "--most", "200", "--pages", "web", "--web"]
assert cli.main(words) == 0
texts = [row[0] for row in TASKS["sst2"].validation("demo").rows[:200]] + ["Émile's café, 北京 ok?", "long " * 300, "don't! (3.14)"]
probabilities = Student.load("run/student").predict_proba(texts)
json.dump([texts, probabilities.tolist()], open("wanted.json", "w"))
"""


@pytest.fixture(scope="module")
def web(finished):
    "A server for a folder of pages on which the student runs."
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    process = Command(("-c", "from zskd.tasks import TASKS\n" + PAGE.replace("TEACHER", repr(str(ASSETS / "teacher")))), finished)
    _, errors = process.communicate()
    process.close()
    if "try again with a network" in errors:
        pytest.skip("npm has no network")
    assert process.returncode == 0, errors[-2000:]

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=finished / "web")

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_student_in_the_page_answers_as_in_python(browser, web, finished, width, scheme):
    texts, wanted = json.loads((finished / "wanted.json").read_text())
    asked, said = [], []
    with visitor(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.goto(web)
        page.wait_for_function("globalThis.zskd && document.getElementById('examples').rows.length == 20", timeout=60_000)
        got = page.evaluate(
            "async texts => { const p = []; for (const t of texts) p.push(await zskd.probabilities([t])); return p; }", texts
        )
        assert max(abs(a - b) for p, q in zip(got, wanted, strict=True) for a, b in zip(p, q, strict=True)) < 1e-3
        page.locator("textarea").fill("a moving film")
        page.locator("textarea").press("!")
        wait_for(lambda: re.search(r"answered in ([\d.]+) ms", page.inner_text("#state")))
        assert float(re.search(r"answered in ([\d.]+) ms", page.inner_text("#state"))[1]) < 50
        page.locator("#examples button").first.click()
        wait_for(lambda: page.locator(".bar.teacher").count() == 2)  # its answer to this text is stored
        widths = [float(bar.evaluate("e => parseFloat(e.style.width)")) for bar in page.locator(".bar.teacher").all()]
        assert abs(sum(widths) - 100) < 0.1
        page.locator("textarea").fill("long " * 300)
        wait_for(lambda: "reads only the first" in page.inner_text("#state"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("link", name="Comparison").click()
        page.wait_for_url("**/comparison.html")
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {web.split("/")[2]} and said == []
    own = sum(
        f.stat().st_size for f in (finished / "web").rglob("*") if f.is_file() and f.name in ("index.html", "live.js", "live_page.js")
    )
    assert own + sum(f.stat().st_size for f in (finished / "web" / "student").rglob("*") if f.is_file()) < 3e6
