"""Probes of frozen features, and the regressors that they fit."""
