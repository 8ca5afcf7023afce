"""The sigma_0 laboratory: gradient noise of experts, how it depends on their load, and what that costs.

* ``ladders.py``: what each tier measures
* gamma, the exponent of noise against tokens: ``power_law.py`` fits it, ``gamma.py`` asks, ``gamma_report.py`` and
  ``gamma_plots.py`` show it
* the shift of sigma_0 and the drift that goes with it: ``shift.py`` asks, ``imbalance.py`` and ``residual.py`` relate
  the shift to the load, ``kappa.py`` (with ``line.py``) the drift to the shift, ``shift_report.py`` and
  ``shift_plots.py`` show both
* ``calibrate.py`` makes a ``calibration.py`` from these, ``budget.py`` predicts with it, ``forecast.py`` tests that
"""
