"What several files of tests use."

import pytest


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
