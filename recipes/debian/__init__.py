"""A training set of audio from packages of the Debian archive, or from folders of your own.

`python -m recipes.debian --out DIR` downloads packages and finds the audio in them. It keeps what
has a free licence, is undamaged and has the full band, cuts that into clips of at most 30 s, and
packs them into tar shards, which `melcap.training.decoding.build_cache` reads. README.md has the
commands.

From start to end:

    apt, deb822, unpack   packages, and the audio and copyright files in them
    licences, rules       the licence of each file, its class of audio and its speaker
    sources               a list of audio files from packages and folders
    probe                 each file decoded once: length, bandwidth, loudness, silences
    clips, choose         which files are good, how they are cut, which clips make the hours wanted
    encode                clips as FLAC or Opus
    shards, tables        tar shards, the manifest of their clips, licences
    build, progress       all of it in order, resumable, in worker processes

`languages` adds the languages and words of clips to a manifest, for the probes of `melcap probe`.
"""
