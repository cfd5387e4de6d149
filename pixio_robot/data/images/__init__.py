"""Images for pretraining: frame shards, their order in every epoch, decoding, crops and batches."""
