"""Training on images: data, the run that pretraining and distillation share, hooks, scores of frames."""
