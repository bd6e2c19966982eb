"""Open training data: audio from packages of the Debian archive, or from folders of one's own.

`python -m recipes.debian --out DIR` downloads packages, finds the audio in them, keeps
what is free, sound and of full band, cuts it into clips of at most 30 s, and packs the clips into
tar shards that `melcap.training.data.build_cache` reads. From start to end:

    apt, unpack      packages, and the audio and copyright files in them
    licences, rules  under which licence each file is, and what kind of audio by whom
    sources          a list of audio files, out of packages and folders
    probe            each file decoded once: length, band, loudness, where it sounds
    clips, choose    which files are good, how they are cut, which clips make the hours asked for
    encode, shards   clips to FLAC or Opus, shards with manifest and licences
    build            all of it, in order, resumable
"""
