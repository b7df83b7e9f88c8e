"""How records are shown: as JSON in each version of the API, and as HTML pages."""
