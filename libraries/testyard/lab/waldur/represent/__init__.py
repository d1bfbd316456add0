"""How objects look in JSON: the keys and types of Waldur 7.0.7, and what today's client adds to them."""
