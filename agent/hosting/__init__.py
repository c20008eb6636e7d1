"""Which loaded model answers for a model's name now, and what is counted about its answers.

Separate from serving, which only translates a protocol::

    loading    an installed version, loaded with the runtime that suits it best
    hosted     one version in memory: requests in, answers out, each counted
    answers    what a version's runtime gave, read as an answer
    host       all that answer now, by name, and their windows of telemetry
"""
