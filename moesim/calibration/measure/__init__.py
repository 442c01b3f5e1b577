"""The harness: plans, targets, the sampler, and the run that turns cases into records. torch is imported here."""
