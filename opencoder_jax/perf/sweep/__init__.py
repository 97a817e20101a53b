"""One mesh against another, timed: the runs (sweep), the hosts they run on, the report."""
