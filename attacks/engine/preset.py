"""Named options of a method, with their source."""

from typing import Any


class Preset(dict[str, Any]):
    """Constructor options of a method as they were published or run: a dict, with where they stand.

    Attributes:
        source: the paper and the place in it, or whose code.
        assumed: what the source leaves open, and what was chosen; empty where it leaves nothing open.
        trained_by: the command for the prior that it is of, where that is not shipped: another one is then not taken by
            default.
    """

    def __init__(self, source: str, /, *, assumed: str = "", trained_by: str = "", **options: Any) -> None:
        super().__init__(options)
        self.source, self.assumed, self.trained_by = source, assumed, trained_by
