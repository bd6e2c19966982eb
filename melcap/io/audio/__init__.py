"""Audio files, read and written block by block; the public door is `melcap.audio`.

A file is read in these steps:

    input_file   the caller's path or file object becomes a regular file that can be read anywhere
    formats      the file is scanned without a decoder: the recordings in it, and what is declared
    opening      libsndfile is chosen for each recording, or FFmpeg where libsndfile falls short
    source       decoded blocks are counted, and what is clearly less than declared is refused
    reader       `AudioReader` and `read`

`writer` has `AudioWriter` and `write`; `output_file` makes a file appear only when it is complete.

libsndfile (soundfile) reads what it can read whole. FFmpeg (PyAV) reads the rest: mp4, webm, aac,
an mp3 that does not declare its length, several recordings in a row, and Ogg Opus. With Opus that
was copied from webm or cut, libsndfile 1.2.2 stops part-way or starts up to 312 samples late,
because it trusts page positions; FFmpeg counts the samples to skip. On other files the two agree
to 1e-6, if PyAV has libopus: FFmpeg's own Opus decoder is a few samples off in the speech modes.
Opus is always read at 48 kHz, whatever rate it was made from.

These faults are noticed, and the file is refused:

- wav, rf64, w64, aiff, caf, au, NIST: sizes and counts that disagree, and samples after the
  declared end.
- flac: any changed bit in a frame, and missing frames.
- ogg: any changed bit, and missing pages.
- mp3, mp2, aac: a broken chain of frames, and fewer frames than the file declares.
- mp4, webm, mkv, wma: boxes and elements that are cut, and less than the declared length.

These faults are not noticed, because nothing in the file shows them:

- Changed bits of samples in wav and similar formats, and changed sound within a frame of mp3 or
  aac or a packet of mp4, webm or wma. The length stays as it is.
- A cut exactly between two frames of mp3 or aac that declare no length, between two elements of a
  live recording (webm, mp4 in fragments), or between two pages of Ogg. Phones do not mark the last
  page of an Ogg, so a missing mark says nothing.

Two kinds of file are read to their end: a wav whose size a recorder left open (0, or about 2 or 4
GiB), and any file that declares no length. Several recordings in a row (joined files, chained Ogg)
are read as one if they have the same sample rate and number of channels.
"""
