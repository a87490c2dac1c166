"""The pipeline that turns a job into knowledge, and the loop that runs it."""
