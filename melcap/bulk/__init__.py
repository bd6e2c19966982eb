"""Whole collections to tokens and back: thousands of hours, with nothing lost.

`melcap tokenize`, `detokenize` and `stats` are the commands; `melcap.bulk.run.tokenize` is the
function. The way of a clip:

    sources    the clips there are: folders, globs, manifests, tars, URLs
    journal    the plan, what is done and what is bad; outlives any interruption
    inventory  the files of the token set, as they were written
    tasks      clips that one pass over a file can read
    readers    processes that decode, resample and cut clips into windows
    lanes      threads that hold the codec, and windows packed into batches
    shards     what becomes of it: Parquet, WebDataset or .melcap files
"""
