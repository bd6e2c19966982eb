"""Measures of decoded audio and of tokens; docs/measures.md defines each."""
