"""Generation, reward scoring and log-probabilities with trained models."""
