"""Ablations: variants of a training run, trained and scored side by side."""
