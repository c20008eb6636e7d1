"""What the hub signs: its keys, the image repository and the director's assignments."""
