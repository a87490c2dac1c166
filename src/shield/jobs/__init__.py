"""What a job is, and the promise that an accepted one is never lost."""
