"""The report as one HTML page that needs nothing but itself: no network, no script, no font."""
