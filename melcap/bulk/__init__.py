"""Whole collections to tokens and back: thousands of hours, with nothing lost.

`melcap tokenize`, `detokenize` and `stats` are the commands; `melcap.bulk.run.tokenize` is the
function. The way of a clip:

    sources    which clips there are: folders, globs, manifests, tars, URLs
    journal    what is to be done, what is done, what is bad; outlives any interruption
    readers    processes that decode, resample and cut clips into windows
    lanes      threads that hold the codec, and windows packed into batches
    shards     what becomes of it: Parquet, WebDataset or .melcap files
"""
