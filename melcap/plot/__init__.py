"""Pictures of spectrograms and tokens, drawn with matplotlib, which the `plot` extra installs."""
