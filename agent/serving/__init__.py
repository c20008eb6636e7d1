"""The local inference API. It translates protocols; which model answers is `agent.hosting`'s concern.

::

    local_servers    both servers, opened and closed together; listen, admission, caller: who may come in
    http             HTTP/1.1: http_connection brings bytes, http_requests reads them, http_messages
    api              the routes; describe, statistics and feedback answer some of them
    predictions      a request for predictions from its body to its answer: body, inference, tensors, binary,
                     understood; checks are those of every way in
    shared_memory    tensors in memory that a client shares; shared_region
    fast             the second protocol, for microseconds: fast_connection, fast_stream, fast_frames,
                     fast_form, fast_plan, fast_regions
"""
