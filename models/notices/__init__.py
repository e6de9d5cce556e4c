"""Notices of account activity by e-mail and SMS: kept with what they are about, sent by a job."""
