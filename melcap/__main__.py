"""`python -m melcap`: the command line."""

from melcap.cli.commands import main

if __name__ == "__main__":
    main()
