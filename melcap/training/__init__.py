"""Training of the codec: data, losses, discriminators, and a recipe for each stage."""
