"""The page, the trace, the tables and the words of a run, all made from its JSON document and what was played."""
