"""What every process of a service stands on; it imports nothing of the package that is not here or at the top."""
