"""GenTron: diffusion transformers for text-to-image and text-to-video."""
