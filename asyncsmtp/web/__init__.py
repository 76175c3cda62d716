"""Pages to look at in a browser: the report of a campaign."""
