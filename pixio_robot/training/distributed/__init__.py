"""Training by several processes: collectives, DDP and FSDP2, sharded files, batch normalisation."""
