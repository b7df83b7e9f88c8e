"""The API's structures, a module for each domain, as TypedDicts whose annotations are the table of their fields."""
