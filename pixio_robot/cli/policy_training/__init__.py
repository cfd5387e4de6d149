"""Prepare what `pixio-robot train` trains: demonstrations, their split, the policy, and rollouts during training."""
