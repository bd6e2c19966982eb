"""The command line.

    commands    the program `melcap`: its commands, in groups
    exits       exit statuses, and errors as sentences
    options     options that commands share, and the codec that they ask for
    output      JSON and tables on stdout
    progress    progress bars on stderr

Commands that work on files share these:

    jobs        which file becomes which
    batch       file after file, past those that fail
    pipes       `-` as stdin or stdout

The other modules hold commands: `bulk` those for collections, `transcode` also encode and decode,
`train` also train-decode and train-curves, and the rest the command of their name. Some modules
serve one of these: `bulk_progress` is for `bulk`, `describe` for `info`, `picture` for `plot` and
`diagnosis` for `doctor`.
"""
