"""What `scripts/make_models` is made of: networks, fake quantization, training, export, check."""
