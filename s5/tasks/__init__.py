"""ESPnet2 tasks over the taggers and separators. A task module imports ESPnet; this package alone does not."""
