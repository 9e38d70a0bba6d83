"""The fuzzer runs in processes of its own: its modules change their environment, so pytest does not import them."""

collect_ignore = ["kinds.py", "mutate.py", "originals.py", "run.py"]
