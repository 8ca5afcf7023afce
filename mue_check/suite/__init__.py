"""The options, cases, workers and display of ``pytest suites/``. Imports nothing heavy at the top."""
