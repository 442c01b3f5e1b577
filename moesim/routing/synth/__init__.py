"""Synthetic routing: expert loads with the skew and clustering of measured ones, and tokens that follow them."""
