"What several files of tests use."

from collections.abc import Iterator

import pytest
from commands import Command


@pytest.fixture
def call(capsys):
    "A command in this process: exit code, standard output, standard error."
    from zskd import cli

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(w) for w in words])
        got = capsys.readouterr()
        return code, got.out, got.err

    return call


@pytest.fixture
def start() -> Iterator:
    """Starts a command as a process of its own, which does not outlive the test: words, and `folder`, `env`, `limit` (bytes a file may
    have)."""
    started: list[Command] = []

    def start(*words, **more) -> Command:
        started.append(Command(words, **more))
        return started[-1]

    yield start
    for command in started:
        command.close()


@pytest.fixture
def run(start):
    "A command as a process of its own: exit code, standard output, standard error."

    def run(*words, **more) -> tuple[int, str, str]:
        command = start(*words, **more)
        out, err = command.communicate()
        return command.returncode, out, err

    return run
