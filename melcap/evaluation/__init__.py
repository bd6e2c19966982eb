"""Measure how good a codec sounds and what its tokens are worth.

- `melcap evaluate` (`report`, `scorecard`) runs codecs over the same clips and measures what they
  decode: `peers` holds the codecs, `measures` the measures. docs/measures.md defines each figure.
- `melcap probe` (`probes`) trains small classifiers on tokens and on the log-mel, and runs a speech
  recogniser on decoded speech. docs/downstream.md describes it.

Nothing that encodes or decodes imports this package.
"""
