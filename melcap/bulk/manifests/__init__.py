"""The clips of a collection: folders, globs, tars, URLs, and manifests of any form.

`sources.find` searches all of them. `manifest` opens a manifest; `delimited`, `json_rows`, `kaldi`
and `parquet` read its rows; `columns` turns a row into an entry, whose values `values` checks.
"""
