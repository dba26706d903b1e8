"""Benchmarks: what a model is worth on labelled faces, scored as 3DDFA and RADAN score, and how fast everything is.

``labelled`` reads the data sets in their users' file formats, ``answers`` lets a model answer them or reads given
predictions, ``scoring`` is the formulas and tables, ``speed`` times our stages in turn with ``plain`` ones, ``plots``
draws both. `radan_ros.tools.benchmark` is the command.
"""
