"""What is done to the platform, one module for each kind of load."""
