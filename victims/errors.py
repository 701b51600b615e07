"""Messages to the user: an exception for what they can fix, a warning for what they should know."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    Its message is one line: what is wrong, what was expected, how to fix it. The command line prints
    that line alone and exits with 2.
    """


class Notice(UserWarning):
    """Something about the run that its user should know, in one line; the command line prints it."""


class Unfinished(Exception):
    """Tasks have no rows, and the processes that had them have ended."""


def without_options(why: str) -> str:
    """A reason without its fix, where that names options, which may be those of another command."""
    reason, _, fix = why.rpartition("; ")
    return reason if reason and "--" in fix else why
