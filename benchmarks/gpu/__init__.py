"""What `run_gpu.py` measures, and how: one worker process does the work, the command only asks and writes."""
