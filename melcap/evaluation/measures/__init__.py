"""Measure decoded audio and tokens. docs/measures.md defines each measure."""
