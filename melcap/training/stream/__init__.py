"""Training on collections that do not fit a cache: tar shards are decoded as the run goes on.

    shards     tars by file, URL or command: brace patterns, opening, what identifies a collection
    tar_clips  the clips of a tar that is read forward, and their classes
    lane       the endless sequence of pieces of clips that one process decodes
    process    that process, and what becomes of a crash
    window     the pieces in memory, from which crops are drawn
    place      the place of a stream in a checkpoint
    sampler    `StreamSampler`, which has the interface of `CropSampler`

The `webdataset` package reads the same tars, but it was not used here. Its order with several
workers depends on their speed, its shuffle buffer has no state, and its authors advise against
resuming exactly (webdataset issues 177, 234 and 271). A tar that is cut between two members ends
without an error in it, and so does a command that fails after its last byte. What is left to share
would be `tarfile` and a loop.
"""
