"""Pictures of spectrograms and tokens, drawn with matplotlib."""
