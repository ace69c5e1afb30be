"""What every process of a service stands on. What it needs of the package is in here, or in `errors` and `log`."""
