"""Measure what tokens are worth besides sound; `melcap probe` does it.

Small classifiers learn the class and the language group of clips from tokens and from the log-mel
that the tokens were made from, and a speech recogniser transcribes decoded speech.
"""
