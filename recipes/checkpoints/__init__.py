"""What checkpoints are made of, without torch: architectures, names and shapes of tensors, Hugging Face folders."""
