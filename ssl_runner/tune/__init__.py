"""Ray Tune: a grid of trials, run concurrently, each ending as a row of the table.

`__main__` is the command line, `cluster` starts or joins Ray, `sweep` schedules, `worker` is what
runs in a trial's process.
"""
