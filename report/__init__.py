"""Tables, figures and a page from a profile's result files; needs neither torch nor the data."""
