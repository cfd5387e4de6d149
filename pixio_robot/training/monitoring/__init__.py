"""What is watched during training: metrics, loggers, throughput, non-finite values."""
