"""The command lines of scripts that measure: errors in one line, and `--quick`. No import that may be missing."""

import argparse
from typing import NoReturn

YES, NO = ("yes", "true", "1", "on"), ("no", "false", "0", "off", "")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help.\n")

    def add_quick(self, help: str) -> None:
        """Alone, or with a value, such as make passes it on."""
        self.add_argument("--quick", type=asked, nargs="?", const=True, default=False, metavar="yes", help=help)


def asked(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise argparse.ArgumentTypeError(f"'{text}' is neither yes nor no")
    return text.lower() in YES
