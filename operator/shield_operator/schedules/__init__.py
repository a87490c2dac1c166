"""Schedules: IngestSchedules become IngestJobs at their times, by the rules of a CronJob."""
