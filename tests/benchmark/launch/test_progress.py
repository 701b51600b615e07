"""What is said while a progress bar is shown."""

import sys
import warnings

from tqdm import tqdm

from benchmark import __main__ as command
from victims.errors import Notice


def test_a_notice_has_a_line_of_its_own_above_the_bar(monkeypatch, capsys):
    def run(arguments):
        with tqdm(total=2, file=sys.stderr) as bar:
            bar.update(1)
            warnings.warn("this is so.", Notice, stacklevel=2)
        return 0

    monkeypatch.setattr("benchmark.commands.dispatch", run)
    with warnings.catch_warnings():
        assert command.main([]) == 0
    written = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "benchmark: this is so." in written
