"""Tools of the repository; none is installed."""
