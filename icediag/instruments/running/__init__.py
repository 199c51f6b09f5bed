"""The user's code, run as it is: contained, seeded, and everything left as it was found."""
