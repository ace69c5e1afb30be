"""What is to run, as the user asked for it: checked, and worked out before any process starts."""
