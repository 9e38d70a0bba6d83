"""A system: taggers, their vote, separators and their fusion, from one YAML; the Python API."""
