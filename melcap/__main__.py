"""The command line as `python -m melcap`."""

from melcap.cli.commands import main

if __name__ == "__main__":
    main()
