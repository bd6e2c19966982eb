"""Files: audio, `.melcap` files, weights, and writes that never leave half a file behind."""
