"""Recording of expert demonstrations, of video for pretraining, and of frames with ground truth."""
