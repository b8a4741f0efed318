"""What pytest needs to know: every notebook of nbs/ is a test of its own, run by nbdev's test machinery in a process of its own."""

import gc
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
TIMEOUT = 900  # seconds that one notebook may take
RUN_ONE = """
import gc, os, sys
gc.freeze()
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
from shared_answers import share_answers
share_answers(answers)
os.dup2(os.open(output, os.O_WRONLY), 1)
os.dup2(1, 2)
os.chdir(get_config().config_path)
passed, seconds = test_nb(Path(path), get_config().tst_flags.split(), flags.split(), basepath=get_config().config_path)
sys.exit(0 if passed else 1)
"""
# A server that has imported the package and what it needs forks a clean process for each notebook, and for each command of the tests,
# which saves some seconds of imports each time. There is one server for each process of pytest, so this is the only list: a file of tests
# that gave another one would replace it. A fork begins with `gc.freeze()`, or every collection would visit all that was imported, some
# 500,000 objects.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "nbdev.test",
        "pandas",
        "plotly.graph_objects",
        "zskd.distillation",
        "zskd.tracking",
        "zskd.cli",
        "zskd.serve",
        "zskd.pretraining",
        "zskd.export",
    ]
    + [f"transformers.models.{name}.modeling_{name}" for name in ("albert", "bert")]
)
sys.path.insert(0, str(ROOT / "tests"))  # a notebook's process imports `shared_answers` from there
# Tests use no network, draw no progress bars, and say nothing that is not about the test.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="cells and tests with these flags run too, for example --flags 'slow gpu'")


def pytest_configure(config):
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    # the interpreter's own scripts come first, so that `!zskd …` in a cell is the one that is tested
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:  # they share the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share a folder
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        os.environ["ZSKD_TEST_ANSWERS"] = str(Path(folder.name) / "answers.sqlite")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C and would hand that on to what it starts


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.getoption("--flags").split():
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; ask for it with --flags slow"))


def pytest_collection_finish():
    gc.freeze()  # what the files of tests imported is there to the end, too


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb" and not file_path.name.startswith(("_", ".")) and not (file_path.parent / ".notest").exists():
        return Notebook.from_parent(parent, path=file_path)
    return None


class Notebook(pytest.File):
    "A notebook file; it holds one test, itself."

    def collect(self):
        yield NotebookRun.from_parent(self, name=self.path.stem)


class NotebookRun(pytest.Item):
    "All cells of a notebook in order, except those flagged `slow` or `gpu` and those with `eval: false`."

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_marker("notebook")

    def runtest(self):
        with tempfile.NamedTemporaryFile("r", errors="replace") as output:
            names = {
                "path": str(self.path),
                "flags": self.config.getoption("--flags"),
                "output": output.name,
                "answers": os.environ["ZSKD_TEST_ANSWERS"],
            }
            process = processes.Process(target=exec, args=(RUN_ONE, names))
            process.start()
            process.join(TIMEOUT)
            if process.is_alive():
                process.kill()
                process.join()
                raise NotebookError(f"took longer than {TIMEOUT} s")
            if process.exitcode != 0:
                raise NotebookError(re.sub(r"\x1b\[[0-9;]*m", "", output.read()[-10000:]))

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, NotebookError):
            return f"{self.path.relative_to(ROOT)} failed\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, None, f"notebook {self.path.relative_to(ROOT)}"


class NotebookError(Exception):
    "A cell of a notebook failed; the text is nbdev's own account of it, with cell number and traceback."
