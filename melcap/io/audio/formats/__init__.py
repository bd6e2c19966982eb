"""Scanners of audio files by format: they find the recordings in a file without decoding it.

`detect` chooses the scanner by the first bytes of the file. Every scanner has the same form,
`scan(file, at)`: it returns the recordings of a file in which its format begins at byte `at`.

    wav (RIFF, RIFX, RF64, BW64, W64), aiff, caf, au, nist    samples after a header
    flac, ogg, matroska (also webm), mp4, asf (wma)           frames, pages, elements or boxes
    mpeg (mp3, mp2, mp1, AAC in ADTS)                         frames without a container
    chunks, frames, tags                                      structures that several formats share
"""
