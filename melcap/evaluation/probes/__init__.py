"""Probes: what can be learnt from tokens, compared with what can be learnt from audio."""
