"""Clips decoded, resampled and cut into windows, in processes of their own.

Nothing here imports torch, so that reading processes start fast and stay small.
"""
