"""Tokenize whole collections of audio, and read the token sets that come of it.

The commands `melcap tokenize`, `detokenize`, `stats` and `row-tables` have their functions in
`melcap.bulk.tokenize`, `detokenize`, `stats` and `row_frequencies`; `ray_engine` runs `tokenize` on
a cluster. The packages follow the way of a clip:

    manifests    the clips of a collection: folders, globs, manifests of any form, tars, URLs
    reading      processes that decode, resample and cut clips into windows
    encoding     batches of windows, and the threads that run the codec on them
    token_sets   shards (Parquet, WebDataset, .melcap files), the journal and its inventory
    files        files and URLs opened safely, and their names
"""

INSTALL = 'pip install "melcap[bulk]"'
"""The command that installs what this package needs beyond melcap itself."""
