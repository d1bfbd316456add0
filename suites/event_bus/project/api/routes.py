ROUTES = ("/login", "/logout")
