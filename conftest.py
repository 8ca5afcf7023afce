"""The suites' options come from this plugin. It is loaded here only, so that it adds nothing to other projects."""

pytest_plugins = ["mue_check.pytest_plugin", "pytester"]
