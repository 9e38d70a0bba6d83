"""ESPnet2 tasks over the taggers and separators. Importing a task module imports ESPnet; this package alone does not."""
