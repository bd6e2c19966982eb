"""The codec's networks: front end, tokenizer, codebook, mel decoder and vocoder."""
