"""Broken and hostile input, generated: each case ends in one clear line, soon, in little memory, with nothing left.

`python -m trials.hostile [--only KIND] [--every N] [--seed N]` prints a row a kind: cases, refused, accepted (where a
case may be harmless), and what failed. Exit code 4 where anything did.
"""
