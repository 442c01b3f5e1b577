"""What a trace says: load, balance over time, affinity between layers, locality, domains, drift."""
