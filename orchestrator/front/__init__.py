"""The one public port: TLS, the station's Fleet routes passed on to the SuperLink, our own API; all else is 404."""
