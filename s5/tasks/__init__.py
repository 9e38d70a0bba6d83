"""ESPnet2 tasks that train taggers and separators. Importing this package alone does not import ESPnet."""
