"""End every command with its exit status, and each failure in one sentence.

    0    success
    1    failure: a file that cannot be read, weights that do not fit, a device that is not there
    2    usage: an unknown command or option, a value that an option does not take, or options that
         do not go together
    130  interrupted with Ctrl-C (SIGINT)
    143  ended by `kill` (SIGTERM)

Failures go to stderr, one sentence each, which begins with "error: ". Typer reports wrong usage
itself, and Ctrl-C prints "interrupted".
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from melcap.cli.output import print_json
from melcap.errors import MelcapError

FAILURE = 1
INTERRUPTED = 130
TERMINATED = 143


@contextmanager
def exit_on_errors(as_json: bool = False) -> Iterator[None]:
    """End the program with a sentence and a status when the block raises an error.

    Args:
        as_json: also print the sentence to stdout, as {"error": sentence}.

    Raises:
        typer.Exit: with `FAILURE` after an error of melcap or of the operating system, with
            `INTERRUPTED` after Ctrl-C. Other errors are bugs and pass through.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # `melcap ... | head`: typer ends the program without a message
    except (MelcapError, OSError) as error:
        if as_json:
            print_json({"error": sentence(error)})
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(FAILURE) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error


def sentence(error: Exception) -> str:
    """Return what an error says, with the file's name where the operating system raised it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def prepare_process() -> None:
    """Prepare a process that runs one command: its reaction to SIGTERM, and odd file names."""

    def end(*_: object) -> None:
        sys.exit(TERMINATED)

    # The stack unwinds, so that temporary files go away as they do on Ctrl-C.
    signal.signal(signal.SIGTERM, end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be valid text
        sys.stdout.reconfigure(errors="backslashreplace")
