"""The hub's HTTP API, version 1.

::

    app.py         the application, which server.py serves;  services.py  what its routes stand on
    <subject>.py   the routes of one subject; their shapes are in <subject>_schemas.py or schemas.py
    auth.py        who calls;  preconditions.py  of which state;  limits.py, uploads.py  how much;
                   turns.py  how many at once
    refusals.py    what is wrong with a request;  errors.py  how it is said
    paging.py      answers part by part;  exports.py  in which form
    metrics.py     the page for Prometheus, with alert_metrics.py;  requests.py  every request is counted
"""
