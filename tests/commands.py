"Commands of `zskd` as processes of their own, without the seconds that imports take."

import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

processes = multiprocessing.get_context("forkserver")  # the server of the root's conftest.py, which has the packages imported


def work(words: list[str], pipes: list[Connection], folder: str, env: dict[str, str], limit: int | None) -> None:
    "What the console script does, or Python with `-c` and code, in a process that was forked from the server."
    from zskd import cli

    gc.freeze()  # what was imported
    for number, pipe in enumerate(pipes, 1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    # the server's streams stand for other files
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if words[:1] == ["-c"]:
        sys.exit(exec(words[1], {"__name__": "__main__"}))
    sys.argv = ["zskd", *words]
    sys.exit(cli.main())


class Command:
    "A `zskd` command, or `-c` and Python code, in a process of its own; used like `subprocess.Popen`."

    def __init__(self, words: tuple, folder: str | Path = "", env: dict[str, str] | None = None, limit: int | None = None):
        ends = [processes.Pipe(duplex=False) for _ in range(2)]
        args = ([str(w) for w in words], [w for _, w in ends], os.path.abspath(folder), {**os.environ, **(env or {})}, limit)
        self.process = processes.Process(target=work, args=args)
        self.process.start()
        self.pid = self.process.pid
        self.stdout, self.stderr = (os.fdopen(os.dup(r.fileno()), encoding="utf-8", errors="replace") for r, _ in ends)
        for reader, writer in ends:
            reader.close()
            writer.close()

    @property
    def returncode(self) -> int | None:
        "None while the process is running."
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 600) -> int:
        "The exit code."
        self.process.join(seconds)
        assert self.returncode is not None, f"still running after {seconds} s"
        return self.returncode

    def communicate(self, seconds: float = 600) -> tuple[str, str]:
        "All that was printed and not read yet, once the process has ended."
        said: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda name=name: said.update({name: getattr(self, name).read()}), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for thread in readers:
            thread.start()
        self.wait(seconds)
        for thread in readers:
            thread.join(seconds)
        return said["stdout"], said["stderr"]

    def close(self) -> None:
        if self.returncode is None:
            self.process.kill()
            self.process.join()
        self.stdout.close()
        self.stderr.close()
