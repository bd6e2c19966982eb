"""How good the codec sounds: measures, the peers it is compared with, and a scorecard of both.

`melcap.evaluation.metrics` holds the measures, `melcap.evaluation.peers` the codecs, and
`python -m melcap.evaluation.scorecard` runs the one over the other. Nothing else imports this.
"""
