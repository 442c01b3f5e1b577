"""moesim: a discrete-event simulator of Mixture-of-Experts clusters that replays recorded routing traces."""
