"""Calibration: records of measured kernels, their import, and profiles fitted to and checked against them."""
