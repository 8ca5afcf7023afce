"""What ``pytest suites/`` is made of: its options, its cases, its voice. Nothing heavy is imported at the top."""
