"""Broken training set-ups, each a real mistake, and right ones: what the audit is tested on."""
