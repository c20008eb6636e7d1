"""What travels between hub and devices: names, topics, messages, manifests, assignments, errors.

::

    a bundle    manifest.py     what is in it; requirement.py: what it asks of a device
                chunks.py       how its blobs travel
                difference.py   how far its answers may be from those expected
    an order    assignment.py   what a device should run; wishes.py, capture.py and maintenance.py go with it
                cose.py         its signed bytes, cbor.py, by the keys of director.py
                deployment.py   what becomes of it
    a message   messages.py     what it says; topics.py: who may publish it where; enrolment.py goes over HTTP
    a record    records.py      what is told exactly once; heads.py: as the hub takes it in
                windows.py      telemetry windows checked and added up; thousands at once: window_table.py
                latency.py      like memory.py, labels.py and board.py: what windows count
                noised.py       a window with noise on it
                shadow.py       a candidate beside the active version
                samples.py      an input for people to label
    in all      errors.py, names.py, fields.py, text.py
"""
