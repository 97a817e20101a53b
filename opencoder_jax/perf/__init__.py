"""Predicted and measured speed of the training step: plan, profile, sweep, timing. The trainer does not import it."""
