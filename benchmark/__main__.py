"""`python -m benchmark COMMAND ...`, also installed as `gibench`.

Almost nothing is imported before signals are handled, so that Ctrl-C ends in one line from the start.
"""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from benchmark.launch.stop import Stopped, stoppable
from victims.errors import InputError, Notice, Unfinished


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0; one line and 2 for what the user can fix, 1 for tasks left undone, 130 or 143 where stopped.

    Of several runs see `run_matrix`, `reproduce`.
    """
    warnings.simplefilter("ignore")  # what libraries say to each other
    warnings.simplefilter("always", Notice)
    warnings.showwarning = lambda message, *_: say(f"benchmark: {message}")
    try:
        with stoppable():
            from benchmark.commands import dispatch

            code = dispatch(sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
            return code
    except Stopped as stop:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return stop.code  # the first process says it
        code, line = stop.code, str(stop)
    except InputError as error:
        code, line = 2, str(error)
    except Unfinished as error:
        code, line = 1, str(error)
    except SystemExit as error:
        from victims.contract import line_of_error

        place = line_of_error(error)
        if not place:  # of the suite, such as --help
            raise
        code, line = 2, f"the run was ended by sys.exit({error.code!r}) of your code; raise an error instead ({place})."
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        from victims.contract import line_of_error

        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            code = 1
            line = "the disk is full; free some space, then the same command goes on with the tasks not yet done."
        elif place := line_of_error(error):
            code, line = 2, f"your code raised {type(error).__name__}: {' '.join(str(error).split())} ({place})."
        else:  # of the suite
            raise
    print(f"benchmark: {line}", file=sys.stderr)
    return code


def say(line: str) -> None:
    """Above a progress bar that is shown, whose line has no end yet."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
