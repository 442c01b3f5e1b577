"""The local truth loop: costs measured in two gloo processes predict a real MoE layer in the same two."""
