"""The runtimes of devices, as they are used here: to run, judge, time and describe what was converted."""
