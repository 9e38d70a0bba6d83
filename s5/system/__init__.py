"""Systems of taggers, a vote, separators and their fusion, each from one YAML; the Python API."""
