"""How good the codec sounds: measures, the peers it is compared with, and a scorecard of both.

`melcap.evaluation.measures.metrics` holds the measures, `melcap.evaluation.peers` the codecs, and
`melcap evaluate` (or `python -m melcap.evaluation.scorecard`) runs the one over the other.
docs/measures.md defines every measure. The codec itself imports nothing of this.
"""

CODECS = (
    "melcap",
    "melcap-fast",
    "melcap-best",
    "opus-6",
    "opus-8",
    "opus-12",
    "opus-16",
    "opus-24",
    "codec2-3200",
    "speex",
    "griffin-lim",
    "original",
)
"""Names that the scorecard knows; another rate goes in the place of a number."""
