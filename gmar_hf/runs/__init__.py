"""Long work over a data set that survives a kill."""
