"""Trains and tests the rows of the papers' tables, and compares what was measured with what the papers report.

``jobs`` turns rows into work, ``local`` and ``slurm`` do it, ``trial`` makes a config for another data set or a short
schedule, ``results`` reads what mmengine has written, ``difference`` tells two configs apart, ``report`` and
``generated`` write the tables.
"""
