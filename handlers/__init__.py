"""Every way in: the events we hear, the notices we say, the routes, the timed jobs. One catalogue of all of them."""
