"""What several benchmarks share: timing, result files, training steps, synthetic data."""
