"""The chart: what it renders, who may talk to whom, and that its generated files are up to date."""
