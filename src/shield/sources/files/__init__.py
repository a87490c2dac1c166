"""Files into documents: pre-flight, and conversion in a child process that can be killed."""
