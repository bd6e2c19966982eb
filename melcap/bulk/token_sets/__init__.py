"""Token sets on disk: rows, shards in three formats, and the journal of what is done."""
