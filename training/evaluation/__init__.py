"""What a run measures beside its loss: answers to needle probes, and the loss on short texts."""
