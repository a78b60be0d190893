"""The terminal, or what the output is piped to."""

from rich.console import Console

_ENDLESS = 10_000  # columns: a table is as wide as what is in it, and no id is cut


class Screen(Console):
    """Plain lines of any length; a reader that has stopped reading is a BrokenPipeError, as it is for print."""

    def __init__(self) -> None:
        super().__init__(soft_wrap=True, highlight=False, width=_ENDLESS)

    def on_broken_pipe(self) -> None:
        """Leave it to the command: rich would end it with the exit code of a failed run."""
        raise  # noqa: PLE0704 - within the handler of the error
