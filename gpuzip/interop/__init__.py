"""To and from other libraries; each is imported when it is asked for."""
