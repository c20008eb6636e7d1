"""Alerts on the hub: looking, keeping what is found, and telling receivers.

::

    settings.py    ``alerts.toml``; receivers.py: whom it can name, and their secrets
    alerting.py    all of it, put together
      facts.py       what the rules of `fleet.alerts` judge
      watch.py       what they find becomes alerts, and what is to be told of them
      delivery.py    what is to be told is sent, as fast as pace.py lets it
        webhook.py, alertmanager.py, mail.py   to each kind of receiver, what messages.py says;
                                               over HTTP by posting.py
"""
