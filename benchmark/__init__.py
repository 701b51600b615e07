"""The run: command line, tasks, evaluation, rows."""
