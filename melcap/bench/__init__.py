"""Measure the speed of the codec and its kernels on this machine.

    clips        audio of any length to measure on
    speed        encoding and decoding in times real time, in rounds
    agreement    what must hold before a codec is timed: tokens and samples of the reference
    kernels      each operation on the backends torch and triton, side by side
    origin       the machine and the versions that a figure was measured with

Nothing is timed before its results have been compared with the reference.
"""
