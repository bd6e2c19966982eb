"""Training: data, losses, discriminators and one recipe per stage; imports the codec."""
