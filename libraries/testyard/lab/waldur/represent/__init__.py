"""How objects look in JSON: the keys and types recorded from Waldur 7.0.7, and what today's client adds to them."""
