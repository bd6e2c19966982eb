"""Files: audio, `.melcap` files, weights, and what they share.

audio/         audio files; `melcap.audio` is the public door
container/     `.melcap` files
weights_file   weights with their configuration
resample       sample-rate conversion
files          atomic writes, and the refusal of folders, pipes and devices
suffixes       the suffixes of audio files, archives, manifests and token files
"""
