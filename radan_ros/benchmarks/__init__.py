"""Benchmarks: what a model is worth on labelled faces, scored as 3DDFA and RADAN score, and how fast everything is.

``faces`` is what is measured on, ``labelled`` reads it in its users' file formats, ``answers`` lets a model answer or
reads given predictions, ``scoring`` is the formulas and tables, ``speed`` times our stages in turn with ``plain`` ones,
``plots`` draws both. `radan_ros.tools.benchmark` is the command.
"""
