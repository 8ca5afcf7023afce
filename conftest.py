"""The suites' options come from the plugin, whether mue_check is installed or not."""

pytest_plugins = ["mue_check.pytest_plugin", "pytester"]
