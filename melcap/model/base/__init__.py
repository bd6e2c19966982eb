"""The published MelCap architecture (arXiv 2510.01903), for its checkpoints."""
