"""The kinds of question: the cells that each needs, how it judges them from the store, and its part of a report.

Begin with ``question.py`` (what a kind is), ``summary.py`` (a study with all its findings) and ``scales.py`` (a
typical kind). By theme:

* the optimum moves: ``drift.py`` asks and judges, ``drift_report.py`` and ``drift_plots.py`` show; ``controls.py`` has
  drifts whose answer is known
* computed from drifts: ``trend.py``, ``exponents.py``, ``own_optima.py`` along a ladder; ``sensitivity.py`` what tells
  wrong rules from right ones
* activations and weights: ``scales.py``; the values at the optimizer: ``values.py``
* losses: ``early.py`` (first steps), ``tune_once.py`` (final losses along a ladder), ``speed.py`` (steps to a loss)
* ``routing.py`` (load and weights of a trained router), ``samples.py`` (images of diffusion models)
* across kinds: ``axes_report.py`` (axis by axis), ``what_next.py`` (likely causes of a failure)
* shared: ``case.py`` (what one test of the suites is about), ``display.py`` (columns, headings, colors)
"""
