"""The command line.

    commands    the program `melcap`: its commands, in groups
    exits       exit statuses, and errors as sentences
    options     options that commands share, and the codec that they ask for
    output      JSON and tables on stdout
    progress    the progress bar on stderr

Commands that work on files share these:

    jobs        which file becomes which
    batch       file after file, past those that fail
    pipes       `-` as stdin or stdout

Every other module holds the command of its name, or what that command alone needs: `describe` is
for `info`, `picture` for `plot` and `diagnosis` for `doctor`.
"""
