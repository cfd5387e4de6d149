"""What is watched during training: metrics, loggers, progress, throughput, non-finite values."""
