"""The program `melcap`: its commands, in groups, each a function of a module of melcap/cli.

Results go to stdout, progress and errors to stderr. `melcap.cli.exits` lists the exit statuses.

This module and those of the commands import nothing heavy at the top, because --help must be quick.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.core

from melcap.cli.ablate import ablate
from melcap.cli.bench import bench
from melcap.cli.bulk import detokenize, row_tables, stats, tokenize
from melcap.cli.convert import convert
from melcap.cli.doctor import doctor
from melcap.cli.evaluate import evaluate
from melcap.cli.exits import exit_on_errors, prepare_process
from melcap.cli.export import export
from melcap.cli.info import info
from melcap.cli.plot import plot
from melcap.cli.probe import probe
from melcap.cli.train import train, train_curves, train_decode
from melcap.cli.transcode import decode, encode, transcode

PANELS = {
    "Files": (encode, decode, transcode, info, plot, convert),
    "Collections": (tokenize, detokenize, stats, row_tables),
    "Measure": (doctor, bench, evaluate, probe),
    "Train": (train, train_decode, train_curves, export, ablate),
}
"""The commands, as `melcap --help` groups them."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with exit_on_errors(as_json="--json" in ctx.args):  # the arguments of the command
            return super().invoke(ctx)


def _version(wanted: bool) -> None:
    if wanted:
        from melcap import __version__

        typer.echo(f"melcap {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success, 1 failure, 2 wrong usage, 130 after Ctrl-C, 143 after kill.",
)


@app.callback()
def _melcap(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speech, music and sound as one stream of tokens, and back to audio."""


for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    prepare_process()
    app(prog_name="melcap")
