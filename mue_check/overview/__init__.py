"""A whole study: its report and conclusion, rules side by side, and export to an experiment tracker."""
