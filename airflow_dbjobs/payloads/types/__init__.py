"""The structures of the API as TypedDicts, a module for each domain. The annotations describe the fields."""
